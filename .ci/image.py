#!/usr/bin/env python3
"""Assembles the tree of the Dockerfile's last stage from the built binary and runs it as an engine would: user 65532,
read-only root, no capability. Proves that nothing is missing, on a machine without a container engine.

  image.py                      builds both binaries (profile release) and runs every check
  image.py --medic A --lab B    takes existing binaries: A for the image, B to serve the lab that A watches. If A is static
                                (from packaging/tarball.sh --static), its root has no base image: only CA certificates
                                and the files for name lookups

The content of the base image is copied from this machine. A library that the base image does not have (BASE_LIBRARIES)
fails.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

import image_checks
from container import UID

ROOT = pathlib.Path(__file__).resolve().parent.parent
# gcr.io/distroless/cc-debian12: base-nossl (glibc), libgcc, libstdc++, libgomp. The loader is among glibc's.
BASE_LIBRARIES = re.compile(
    r"(ld-linux-[\w-]+|libc|libm|libdl|libpthread|librt|libresolv|libutil|libnss_\w+|libgcc_s|libstdc\+\+|libgomp)"
    r"\.so\.\d+"
)
BASE_FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{UID}:{UID}:nonroot:/home/nonroot:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nnonroot:x:{UID}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}
BARE_FOLDERS = ["dev", "proc", "etc/ssl/certs"]
BASE_FOLDERS = [*BARE_FOLDERS, "tmp", "home/nonroot"]


def stages(text):
    """The Dockerfile as a list of stages, each a list of (instruction, rest)."""
    text = re.sub(r"^#.*\n", "", text, flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    found = []
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest.strip()))
    return found


def base_images(text):
    """The base image of each stage, by the argument that sets it."""
    before = text[: re.search("^FROM ", text, re.M).start()]
    usual = dict(re.findall(r"^ARG (\w+)=(\S+)$", before, re.M))
    return {name: usual.get(name, "") for name in re.findall(r"^FROM \$\{(\w+)\}", text, re.M)}


def floating(images):
    """The base images, by argument, that are not named by tag and digest: another day they would be different."""
    pinned = r"[\w.-]+\.[a-z]+/[\w./-]+:(?!latest@)[\w.-]+@sha256:[0-9a-f]{64}"
    return [f"{name} is {image or 'not there'}" for name, image in images.items() if not re.fullmatch(pinned, image)]


def prove_the_rule():
    tag, digest = "gcr.io/distroless/cc-debian12:nonroot", "@sha256:" + 64 * "a"
    loose = ["", tag, tag.removesuffix(":nonroot") + digest, tag + digest[:-1], "debian:12" + digest, "a.io/b:latest" + digest]
    if floating({"RUN_IMAGE": tag + digest}) or len(floating(dict(enumerate(loose)))) != len(loose):
        sys.exit("the rule for base images is wrong")


def of(stage, word):
    return [rest for name, rest in stage if name == word]


def check_dockerfile(text, manifest):
    """Our own rules; hadolint checks the general ones."""
    _, build, final = stages(text)
    wrong = []

    def rule(holds, words):
        if not holds:
            wrong.append(words)

    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    bases = base_images(text)
    loose = floating(bases)
    rule(not loose, f"every base image has a registry, a tag and a digest; {', '.join(loose)}")
    rule("# syntax=" not in text, "no frontend that is an image of its own, which would float too")
    rule(list(bases) == ["BUILD_IMAGE", "RUN_IMAGE"], "both base images can be given as arguments")
    rule(f"rust:{toolchain}-" in bases.get("BUILD_IMAGE", "") and f"RUSTUP_TOOLCHAIN={toolchain} " in text, f"toolchain is {toolchain}")
    builds = [run for run in of(build, "RUN") if "cargo build" in run]
    order = [rest for word, rest in build if word == "COPY" or rest in builds]
    layers = len(order) == 4 and order[0].startswith("--from=manifests ") and order[2] == ". ." and order[1] in builds
    rule(layers, "dependencies have their own layer")
    shipped = "cargo build --profile dist --locked --package scaleset-medic --no-default-features"
    rule(builds and all(shipped in run for run in builds), "built with the profile dist, locked, and without the lab")
    rule("/src/target/dist/" in " ".join(of(final, "COPY")), "the binary is that of the profile dist")
    rule("--remap-path-prefix" in text, "no path of the build is in the binary")
    rule(not of(final, "RUN"), "nothing runs in the last stage: it has no shell")
    rule(of(final, "USER") == [f"{UID}:{UID}"], f"the user is {UID} by number, which Kubernetes can check")
    copies = of(final, "COPY")
    entry, volume = (json.loads(of(final, word)[0])[0] for word in ("ENTRYPOINT", "VOLUME"))
    rule(any("--chown=0:0" in copy and copy.endswith(" " + entry) for copy in copies), "the binary is root's")
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    rule(f"image: {bases.get('BUILD_IMAGE')}\n" in workflow, "the gate runs in the image that builds (.github/workflows/ci.yml)")
    rule(
        any(f"--chown={UID}:{UID}" in copy and copy.endswith(f" {volume}/") for copy in copies),
        f"the volume's folder is {UID}'s",
    )
    for word in ("ENTRYPOINT", "CMD"):
        rule(all(rest.startswith("[") for rest in of(final, word)), f"{word} needs no shell")
    rule("CMD [" in of(final, "HEALTHCHECK")[0], "HEALTHCHECK needs no shell")
    version = manifest["workspace"]["package"]["version"]
    rule(of(final, "ARG")[0] == f"VERSION={version}", f"the version's default is {version}")
    for label in ("title", "description", "licenses", "source", "version", "revision"):
        rule(f"org.opencontainers.image.{label}=" in of(final, "LABEL")[0], f"label {label}")
    if wrong:
        sys.exit("Dockerfile: these rules do not hold: " + "; ".join(wrong))
    return final


def check_dependency_layer(text):
    """Runs the commands of the first stage: cargo can read the manifests, and all sources are empty."""
    (prepare,) = of(stages(text)[0], "RUN")
    with tempfile.TemporaryDirectory() as folder:
        for name in re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, pathlib.Path(folder, name))
            elif (ROOT / name).exists():
                shutil.copy(ROOT / name, folder)
        read = "cargo metadata --no-deps --offline --locked --format-version=1 > metadata.json"
        subprocess.run(["sh", "-ec", f"{prepare} && {read}"], cwd=folder, check=True)
        size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*.rs"))
    if size > 100:
        sys.exit(f"the sources of the dependency layer have {size} bytes: it would be built for every change")


def build(*flags):
    """The path of the release binary with these flags."""
    command = ["cargo", "build", "--release", "--locked", "--package=scaleset-medic", "--message-format=json-render-diagnostics", *flags]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    made = [message.get("executable") for message in map(json.loads, lines)]
    return next(path for path in reversed(made) if path)


def keep(binary):
    """A copy that the next build does not replace, for the archive: `image/scaleset-medic` in the target folder."""
    place = pathlib.Path(binary).parent.parent / "image" / "scaleset-medic"
    place.parent.mkdir(exist_ok=True)
    return shutil.copy(binary, place)


def static(binary):
    """Whether it names no loader, and so needs nothing of a base image."""
    command = ["readelf", "--wide", "--program-headers", binary]
    headers = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "LOAD" in headers and "INTERP" not in headers


def libraries(binary):
    """The shared libraries it needs, as this machine has them."""
    if static(binary):
        return []
    listing = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    if "not found" in listing:
        sys.exit(f"this machine lacks a library of the binary:\n{listing}")
    return sorted({pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", listing)})


def assemble(tree, binary, final):
    for folder in BARE_FOLDERS if static(binary) else BASE_FOLDERS:
        (tree / folder).mkdir(parents=True)
        (tree / folder).chmod(0o1777 if folder == "tmp" else 0o755)
    for name, text in BASE_FILES.items():
        # The last two are what engines mount into any root; nobody mounts users.
        if not static(binary) or name in ("etc/hosts", "etc/resolv.conf"):
            (tree / name).write_text(text)
    bundle = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        sys.exit("this machine has no CA certificates to put into the tree: apt-get install ca-certificates")
    shutil.copy(bundle, tree / "etc/ssl/certs")
    needed = libraries(binary)
    for library in needed:
        if not BASE_LIBRARIES.fullmatch(library.name):
            sys.exit(f"{library.name} is not in the base image; the binary would not start there")
        place = tree / str(library).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    entry = tree / json.loads(of(final, "ENTRYPOINT")[0])[0].lstrip("/")
    entry.parent.mkdir(parents=True)
    shutil.copy(binary, entry)
    entry.chmod(0o755)
    for volume in json.loads(of(final, "VOLUME")[0]):
        (tree / volume.lstrip("/")).mkdir(parents=True)
    (tree / "etc/scaleset-medic").mkdir()
    return needed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medic")
    parser.add_argument("--lab")
    given = parser.parse_args()
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    text = (ROOT / "Dockerfile").read_text()
    prove_the_rule()
    final = check_dockerfile(text, manifest)
    check_dependency_layer(text)
    print("Dockerfile: our rules hold, and the dependency layer's manifest can be read")

    with tempfile.TemporaryDirectory(prefix="medic-image-") as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        # Cargo puts both builds at one path: copy one before the other is made. tokio is built as the lab has it, so that
        # both share their dependencies.
        medic = shutil.copy(given.medic or keep(build("--no-default-features", "--features=tokio/test-util")), folder / "medic")
        lab = shutil.copy(given.lab or build(), folder / "lab")
        tree = folder / "root"
        tree.mkdir()
        needed = assemble(tree, medic, final)
        size = pathlib.Path(medic).stat().st_size
        print(f"the binary has {size / 1e6:.1f} MB; its libraries: {', '.join(path.name for path in needed) or 'none'}")
        image = {
            "entrypoint": json.loads(of(final, "ENTRYPOINT")[0]),
            "command": json.loads(of(final, "CMD")[0]),
            "health": json.loads(of(final, "HEALTHCHECK")[0].split("CMD ", 1)[1]),
            "environment": dict(line.split("=", 1) for line in of(final, "ENV")),
            "volume": json.loads(of(final, "VOLUME")[0])[0],
            "version": manifest["workspace"]["package"]["version"],
        }
        image_checks.run_all(folder, tree, lab, image, needed)


if __name__ == "__main__":
    main()
