#!/usr/bin/env python3
"""Puts the tree of the Dockerfile's last stage together from the built binary, and runs it as an engine would: user
65532, read-only root, no capability. Proves that nothing is missing, on a machine without a container engine.

  image.py                      builds both binaries (cargo, release) and runs every check
  RELEASE=1 BUILD_IMAGE=… RUN_IMAGE=… image.py   refuses base images that are not named by digest
  image.py --medic A --lab B    takes built ones: A for the image, B to serve the lab that A looks at

What the base image has is taken from this machine, and no more than it has: libraries outside BASE_LIBRARIES fail.
"""

import argparse
import json
import os
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
BASE_FOLDERS = ["dev", "proc", "tmp", "home/nonroot", "etc/ssl/certs"]


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


def undigested(usual, given):
    """What is wrong with the base images of a release: each must be given, by its usual tag and by a digest."""
    return [
        f"{name} is {given.get(name) or 'not given'}; a release wants {image}@sha256:DIGEST"
        for name, image in usual.items()
        if not re.fullmatch(re.escape(image) + "@sha256:[0-9a-f]{64}", given.get(name, ""))
    ]


def check_digests(text):
    """Refuses a release (RELEASE=1) whose base images float."""
    usual, good = base_images(text), "@sha256:" + 64 * "a"
    fits = {name: image + good for name, image in usual.items()}
    if len(usual) != 2 or undigested(usual, fits) or len(undigested(usual, usual)) != 2:
        sys.exit("the Dockerfile does not take both base images as arguments")
    if os.environ.get("RELEASE") == "1" and (wrong := undigested(usual, os.environ)):
        sys.exit("\n".join(wrong))


def of(stage, word):
    return [rest for name, rest in stage if name == word]


def check_dockerfile(text, manifest):
    """Our own rules; hadolint knows the general ones."""
    build, final = stages(text)
    wrong = []

    def rule(holds, words):
        if not holds:
            wrong.append(words)

    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    images = list(base_images(text).values())
    rule(all(":" in image and not image.endswith(":latest") for image in images), "every base image has a tag")
    rule(f"rust:{toolchain}-" in images[0] and f"RUSTUP_TOOLCHAIN={toolchain} " in text, f"toolchain is {toolchain}")
    builds = [run for run in of(build, "RUN") if "cargo build" in run]
    rule(len(builds) == 2 and "COPY src" not in text[: text.index(builds[0][:9])], "dependencies have their own layer")
    rule(all("--locked --no-default-features" in run for run in builds), "built locked, and without the lab")
    rule("--remap-path-prefix" in text, "no path of the build is in the binary")
    rule(not of(final, "RUN"), "nothing runs in the last stage: it has no shell")
    rule(of(final, "USER") == [f"{UID}:{UID}"], f"the user is {UID} by number, which Kubernetes can check")
    copies = of(final, "COPY")
    entry, volume = (json.loads(of(final, word)[0])[0] for word in ("ENTRYPOINT", "VOLUME"))
    rule(any("--chown=0:0" in copy and copy.endswith(" " + entry) for copy in copies), "the binary is root's")
    rule(
        any(f"--chown={UID}:{UID}" in copy and copy.endswith(f" {volume}/") for copy in copies),
        f"the volume's folder is {UID}'s",
    )
    for word in ("ENTRYPOINT", "CMD"):
        rule(all(rest.startswith("[") for rest in of(final, word)), f"{word} needs no shell")
    rule("CMD [" in of(final, "HEALTHCHECK")[0], "HEALTHCHECK needs no shell")
    version = manifest["package"]["version"]
    rule(of(final, "ARG")[0] == f"VERSION={version}", f"the version's default is {version}")
    for label in ("title", "description", "licenses", "source", "version", "revision"):
        rule(f"org.opencontainers.image.{label}=" in of(final, "LABEL")[0], f"label {label}")
    if wrong:
        sys.exit("Dockerfile: not so: " + "; ".join(wrong))
    return final


def check_dependency_layer(text):
    """The dependency layer's own commands, up to the build: cargo reads the manifest without the sources."""
    commands = next(run for run in of(stages(text)[0], "RUN") if "cargo build" in run)
    prepare = commands[: commands.index("&& cargo build")].rstrip()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Cargo.toml", "Cargo.lock"):
            shutil.copy(ROOT / name, folder)
        read = "cargo metadata --no-deps --offline --locked --format-version=1 > metadata.json"
        subprocess.run(["sh", "-ec", f"{prepare} && {read}"], cwd=folder, check=True)


def build(*flags):
    """The path of the release binary with these flags."""
    command = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics", *flags]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    made = [message.get("executable") for message in map(json.loads, lines)]
    return next(path for path in reversed(made) if path)


def keep(binary):
    """A copy that the next build leaves alone, for the archive: `image/scaleset-medic` in the target folder."""
    place = pathlib.Path(binary).parent.parent / "image" / "scaleset-medic"
    place.parent.mkdir(exist_ok=True)
    return shutil.copy(binary, place)


def libraries(binary):
    """The shared libraries it needs, as this machine has them."""
    listing = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    if "not found" in listing:
        sys.exit(f"this machine lacks a library of the binary:\n{listing}")
    return sorted({pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", listing)})


def assemble(tree, binary, final):
    for folder in BASE_FOLDERS:
        (tree / folder).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    for name, text in BASE_FILES.items():
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
    check_digests(text)
    final = check_dockerfile(text, manifest)
    check_dependency_layer(text)
    print("Dockerfile: our rules hold, and the dependency layer's manifest can be read")

    with tempfile.TemporaryDirectory(prefix="medic-image-") as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        # Cargo puts both builds at one path: copy one before the other is made.
        medic = shutil.copy(given.medic or keep(build("--no-default-features")), folder / "medic")
        lab = shutil.copy(given.lab or build(), folder / "lab")
        tree = folder / "root"
        tree.mkdir()
        needed = assemble(tree, medic, final)
        size = pathlib.Path(medic).stat().st_size
        print(f"the binary has {size / 1e6:.1f} MB; its libraries: {', '.join(path.name for path in needed)}")
        image = {
            "entrypoint": json.loads(of(final, "ENTRYPOINT")[0]),
            "command": json.loads(of(final, "CMD")[0]),
            "health": json.loads(of(final, "HEALTHCHECK")[0].split("CMD ", 1)[1]),
            "environment": dict(line.split("=", 1) for line in of(final, "ENV")),
            "volume": json.loads(of(final, "VOLUME")[0])[0],
            "version": manifest["package"]["version"],
        }
        image_checks.run_all(folder, tree, lab, image)


if __name__ == "__main__":
    main()
