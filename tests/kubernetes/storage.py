"""The S3 server of k8s/overlays/try, read and written by its own file interface inside its pod, so that the
tested code does not check itself."""

import hashlib
import json

from kubectl import StepFailed, kubectl

BUCKETS = "http://127.0.0.1:8888/buckets"
POD = ["deploy/baton-storage", "--container", "s3"]
LIST_LIMIT = 100_000


def _shell(script, stdin=None, binary=False, check=True):
    flags = ["--stdin"] if stdin is not None else []
    return kubectl("exec", *flags, *POD, "--", "sh", "-c", script, stdin=stdin, binary=binary, check=check)


def put(path, data):
    """Writes an object; `path` is BUCKET/KEY."""
    directory, _, name = path.rpartition("/")
    script = f"cat > /tmp/{name} && weed filer.copy /tmp/{name} {BUCKETS}/{directory}/ >&2 && rm /tmp/{name}"
    _shell(script, stdin=data)


def entries(prefix):
    """The names of what lies directly below `prefix`, BUCKET/KEY."""
    url = f"{BUCKETS}/{prefix}/?limit={LIST_LIMIT}"
    text = _shell(f"wget -q -O - --header 'Accept: application/json' '{url}' || true")
    try:
        found = json.loads(text).get("Entries") or []
    except ValueError:
        return []
    return sorted(entry["FullPath"].rpartition("/")[2] for entry in found)


def read(path):
    """The bytes of an object."""
    return _shell(f"wget -q -O - '{BUCKETS}/{path}'", binary=True)


def digests(prefix, names):
    """{name: sha256} of objects directly below `prefix`."""
    if not names:
        return {}
    script = f"for n in {' '.join(names)}; do wget -q -O - '{BUCKETS}/{prefix}/'$n | sha256sum; done"
    sums = [line.split()[0] for line in _shell(script).splitlines()]
    if len(sums) != len(names):
        raise StepFailed(f"{prefix}: {len(names)} parts, {len(sums)} sums")
    return dict(zip(names, sums))


def digest_of(data):
    return hashlib.sha256(data).hexdigest()


def freeze():
    """Stops the server's process; connections stay open and nothing answers."""
    _shell("kill -STOP $(pidof weed)")


def thaw():
    # The container of the server cannot be relied on while its process is stopped; they share processes.
    kubectl(
        "exec", "deploy/baton-storage", "--container", "corpus", "--", "sh", "-c", "kill -CONT $(pidof weed)"
    )


def fill():
    """Takes all of the room that is left for the server's data: the file system's, and then that in the last
    blocks of the server's own files, until it has refused many small objects in a row."""
    _shell(
        "dd if=/dev/zero of=/data/fill bs=64k; head -c 1000 /dev/zero > /tmp/small; number=0; refused=0; "
        "while [ $refused -lt 100 ] && [ $number -lt 2000 ]; do number=$((number + 1)); "
        f"if wget -q -O /dev/null --post-file=/tmp/small {BUCKETS}/corpora/fill/$number; "
        "then refused=0; else refused=$((refused + 1)); fi; done"
    )


def make_room():
    _shell("rm -f /data/fill")


def has_room():
    """Whether the server's file system takes another block."""
    script = "dd if=/dev/zero of=/data/probe bs=4k count=1 && echo yes || true; rm -f /data/probe"
    return _shell(script).strip() == "yes"


def answers():
    """Whether the server answers within three seconds."""
    script = "timeout 3 wget -q -O - http://127.0.0.1:8333/healthz > /dev/null && echo yes || true"
    done = kubectl("exec", "deploy/baton-storage", "--container", "corpus", "--", "sh", "-c", script)
    return done.strip() == "yes"
