"""Libraries of browsers' SIP, as their authors publish them; `npm pack` fetches them once, hashes check them.

Nothing is built and nothing of them is run but by a browser: JsSIP's modules are CommonJS, which `bundle`
puts into one script with a `require` of a few lines; SIP.js' are a browser's own kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.needs import missing, need_program

PINNED = {
    "jssip@3.13.8": "12bc44772d77bd74798b31a8e367e95ce53ae14982d9517b4a1838a181bb4763"
    "73645d054cf7988a47df9082106bdc3eff5d58bd39607b31b59d26b27166173c",
    "sip.js@0.21.2": "b52a9370882b39dd8884ffeb77bd0969b96f029f9f49f2d2c4ee2118d63a2e45"
    "9163548aca04ceeceb49115fc141bf28231b4c471d0b13b9d417631aa866c5cc",
    "debug@4.4.3": "446c305a7c10be455f6af295b76d8518bc3ec5849dcc04709b4aeee83853540d"
    "ee994e6165cdbc57790ee2cb6062bcab4e52e9baf808f468a28e5b408cd6dca8",
    "ms@2.1.3": "e85973b9b4cb646dc9d9afcd542025784863ceae68c601f268253dc985ef70bb"
    "2fa1568726afece715c8ebf5d73fab73ed1f7100eb479d23bfb57b45dd645394",
    "events@3.3.0": "990c3ed9f9106c02f343b574318d08a9d9d734e793b4fe2bd2537dcfb0006b00"
    "9782a79aedb0e28b6d0062b201ac577f1f1d0cd8e733e92d75d4268591471bd1",
    "sdp-transform@2.15.0": "2ab387f3673f5be1984342c7aadaf771a469337213825ab796319421bf0b4e48"
    "bb07269c259f73fa98921a2c190ec4728506d804e04982bda4e97e016578b72b",
}
"""SHA-512 of each package's file (npm's `dist.integrity`, in hex)."""
FETCH_S = 60
"""How long a package may take; npm by itself tries again for minutes."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voicegate-tests"


@cache
def files(package: str) -> Mapping[str, bytes]:
    """A pinned package's files, by their path within it."""
    path = CACHE / f"{package.replace('@', '-')}.tgz"
    if not path.exists():
        _fetch(package, path)
    content = path.read_bytes()
    assert hashlib.sha512(content).hexdigest() == PINNED[package], (
        f"{path} is not the {package} that is pinned; remove it"
    )
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2]: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


def _fetch(package: str, path: Path) -> None:
    npm = need_program("npm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            run = subprocess.run(
                [npm, "pack", "--silent", package],
                cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            missing(f"npm did not fetch {package} within {FETCH_S} s")
        packed = list(Path(folder).glob("*.tgz"))
        if run.returncode or len(packed) != 1:
            missing(f"npm cannot fetch {package}: {run.stderr.strip()[-200:]}")
        packed[0].replace(path)


def bundle(name: str, entry: str, packages: Mapping[str, tuple[str, str]]) -> str:
    """A script that makes `entry` of a package the global `name`.

    `packages`: by the name that `require` has, the pinned package and the path of its main module.
    """
    modules = {
        f"{known}/{path}": content.decode()
        for known, (package, _) in packages.items()
        for path, content in files(package).items()
        if path.endswith((".js", ".json")) and not content.startswith(b"#!")
    }
    mains = {known: posixpath.join(known, main) for known, (_, main) in packages.items()}
    written = ",\n".join(
        f"{json.dumps(path)}: function (module, exports, require) "
        + ("{ module.exports = " + text + "; }" if path.endswith(".json") else "{\n" + text + "\n}")
        for path, text in modules.items()
    )
    return _LOADER % (name, written, json.dumps(mains), json.dumps(entry))


_LOADER = """
window.%s = (() => {
  const modules = {%s}, mains = %s, made = {};
  const load = (path) => {
    if (made[path]) return made[path].exports;
    const module = made[path] = { exports: {} };
    const folder = path.slice(0, path.lastIndexOf('/'));
    modules[path](module, module.exports, (wanted) => {
      if (!wanted.startsWith('.')) return load(mains[wanted]);
      const at = new URL(wanted, 'http://x/' + folder + '/').pathname.slice(1);
      return load([at, at + '.js', at + '/index.js'].find((one) => modules[one]));
    });
    return module.exports;
  };
  return load(%s);
})();
"""
