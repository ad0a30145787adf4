// Which microphone and which speaker: chosen on the page, remembered, replaced by the default when one vanishes.

const KEPT = "voicegate.devices";
const DEFAULT = ""; // whatever the system says
const SYSTEMS = ["default", "communications"]; // names of its choices, not devices
const ASKED = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
const NAMES = { audioinput: "microphone", audiooutput: "speaker" };
const LONGEST = 80;
const GONE = "is gone; the default one is used";

// what was chosen here before: {kind: {id, label}}; anybody may have written there
function kept() {
  const chosen = {};
  try {
    const found = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    for (const kind of Object.keys(NAMES)) {
      const { id, label } = found[kind] ?? {};
      if (typeof id === "string" && typeof label === "string") chosen[kind] = { id, label: label.slice(0, LONGEST) };
    }
  } catch {
    // a private window keeps nothing
  }
  return chosen;
}

export class Devices {
  // pickers: a <select> for each kind, each in a row of its own; nameless: shown while devices have no names;
  // tell(kind, text): says what became of one, nothing where somebody chose; changed(kind): look at what is wanted
  constructor(pickers, nameless, tell, changed) {
    this.pickers = pickers;
    this.nameless = nameless;
    this.tell = tell;
    this.changed = changed;
    this.chosen = kept();
    this.there = { audioinput: [], audiooutput: [] };
    this.broken = {}; // {kind: id} of what was chosen and does not work
    this.last = {};
    for (const [kind, picker] of Object.entries(pickers)) {
      picker.addEventListener("change", () => this.choose(kind, picker.value));
      this.last[kind] = this.wanted(kind);
    }
    navigator.mediaDevices?.addEventListener("devicechange", () => this.look());
    this.look();
  }

  // the device to use: the chosen one, unless it is known to be away or broken
  wanted(kind) {
    const id = this.chosen[kind]?.id ?? DEFAULT;
    const away = this.there[kind].length && !this.there[kind].some((one) => one.deviceId === id);
    return away || this.broken[kind] === id ? DEFAULT : id;
  }

  // reads which devices there are; says so when the one in use went or came back
  async look() {
    const all = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
    for (const kind of Object.keys(NAMES)) {
      // until the page may use a microphone, devices have no names
      this.there[kind] = all.filter((one) => one.kind === kind && one.deviceId);
      if (!this.there[kind].some((one) => one.deviceId === this.broken[kind])) delete this.broken[kind];
      const now = this.wanted(kind);
      if (now !== this.last[kind]) this.tell(kind, this.words(kind, now ? "is back, and used again" : GONE));
      this.last[kind] = now;
      this.draw(kind);
      this.changed(kind);
    }
    this.nameless.hidden = this.there.audioinput.length > 0;
  }

  words(kind, what) {
    return `The ${NAMES[kind]} “${this.chosen[kind]?.label}” ${what}.`;
  }

  choose(kind, id) {
    delete this.broken[kind];
    const label = this.there[kind].find((one) => one.deviceId === id)?.label ?? this.chosen[kind]?.label ?? "";
    if (id) this.chosen[kind] = { id, label: label.slice(0, LONGEST) };
    else delete this.chosen[kind];
    try {
      localStorage.setItem(KEPT, JSON.stringify(this.chosen));
    } catch {
      // it holds until the page is closed
    }
    this.last[kind] = this.wanted(kind);
    this.draw(kind);
    this.tell(kind);
    this.changed(kind);
  }

  // the chosen one does not work; the default takes its place until another choice
  fails(kind, error) {
    this.broken[kind] = this.chosen[kind]?.id;
    this.last[kind] = this.wanted(kind);
    const gone = ["NotFoundError", "OverconstrainedError"].includes(error.name);
    this.tell(kind, this.words(kind, gone ? GONE : "does not work; the default one is used"));
  }

  draw(kind) {
    const picker = this.pickers[kind];
    const id = this.chosen[kind]?.id;
    const named = this.there[kind].filter((one) => !SYSTEMS.includes(one.deviceId));
    const options = [new Option("Default", DEFAULT)];
    named.forEach((one, k) => options.push(new Option(one.label || `${NAMES[kind]} ${k + 1}`, one.deviceId)));
    if (id && !named.some((one) => one.deviceId === id)) {
      const away = this.there[kind].length ? "Gone: " : "";
      options.push(new Option(away + this.chosen[kind].label, id));
    }
    const same = options.length === picker.options.length
      && options.every((one, k) => one.value === picker.options[k].value && one.text === picker.options[k].text);
    if (!same) picker.replaceChildren(...options); // else a list that is open closes
    picker.value = id ?? DEFAULT;
    picker.disabled = options.length === 1;
    // Safari's pages have no say in it, and Firefox's only where its user shared a speaker with them
    const fixed = !HTMLMediaElement.prototype.setSinkId || (picker.disabled && this.there.audioinput.length > 0);
    picker.parentElement.hidden = kind === "audiooutput" && fixed;
  }

  // a stream of the wanted microphone, and its id; raises what getUserMedia raises when the default does not work either
  async microphone() {
    for (;;) {
      const id = this.wanted("audioinput");
      try {
        const exact = id ? { deviceId: { exact: id } } : {};
        const stream = await navigator.mediaDevices.getUserMedia({ audio: { ...ASKED, ...exact } });
        this.look();
        return { stream, id };
      } catch (error) {
        if (!id || error.name === "NotAllowedError") throw error;
        this.fails("audioinput", error);
      }
    }
  }

  // has what plays sound use the wanted speaker, where a browser lets a page choose
  async play(...players) {
    for (const player of players.filter((one) => one?.setSinkId)) {
      try {
        await this.sink(player);
      } catch (error) {
        if (this.wanted("audiooutput")) this.fails("audiooutput", error);
        await this.sink(player).catch(() => {}); // there is none at all
      }
    }
  }

  async sink(player) {
    const id = this.wanted("audiooutput");
    if (player.sinkId !== id) await player.setSinkId(id);
  }
}
