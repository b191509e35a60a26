"""Files of other people's weights: layouts, digests, pickles, and the hub with and without a network."""

import hashlib
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from surveyproc.distributed.preflight import is_local
from surveyproc.distributed.shipping import staged
from surveyproc.distributed.terms import bundle_address
from surveyproc.errors import InputError, ResourceError
from surveyproc.models.bundle import open_bundle
from surveyproc.models.weights import read_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/small-encoder"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder in the hub's layout with both files of weights, as timm writes it."""
    folder = tmp_path_factory.mktemp("hub") / "small-encoder"
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    save_for_hf(model, folder, safe_serialization="both")
    return folder


@pytest.fixture
def copy(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / "small-encoder"))


def digest_of(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def same(state, file) -> bool:
    expected = load_file(file)
    return state.keys() == expected.keys() and all(torch.equal(v, expected[k]) for k, v in state.items())


def test_safetensors_come_first_and_their_digest_is_told(copy):
    (copy / "pytorch_model.bin").write_bytes(b"never opened")
    found = read_weights(str(copy))
    assert same(found.state, copy / "model.safetensors")
    assert found.sha256 == digest_of(copy / "model.safetensors")
    assert found.config["architecture"] == "test_resnet"


def test_the_older_file_holds_the_same(copy, published):
    (copy / "model.safetensors").unlink()
    found = read_weights(str(copy))
    assert same(found.state, published / "model.safetensors")
    assert found.sha256 == digest_of(copy / "pytorch_model.bin")


def test_a_store_is_as_good_as_a_disk(published):
    files = fsspec.filesystem("memory")
    files.put(str(published), "/weights/small-encoder", recursive=True)
    found = read_weights("memory://weights/small-encoder")
    assert same(found.state, published / "model.safetensors")
    assert found.origin == "memory://weights/small-encoder"
    assert open_bundle("memory://weights/small-encoder").name == "small-encoder"


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
def test_a_plain_state_dict_is_read_from_a_single_file(published, tmp_path, name):
    state = load_file(published / "model.safetensors")
    torch.save(state, tmp_path / name) if name != "w.safetensors" else save_file(state, tmp_path / name)
    assert same(read_weights(str(tmp_path / name)).state, published / "model.safetensors")


def test_a_pinned_digest_is_checked(copy):
    right = digest_of(copy / "model.safetensors")
    assert read_weights(f"{copy}@sha256:{right}").sha256 == right
    with pytest.raises(InputError, match=f"sha256 {right}, expected {'0' * 64}"):
        read_weights(f"{copy}@sha256:{'0' * 64}")
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        read_weights(f"{copy}@sha256:{right[:10]}")
    with pytest.raises(InputError, match="not the pinned"):
        open_bundle(f"{copy}@sha256:{'0' * 64}")


def test_a_shipped_bundle_can_be_pinned():
    opened = open_bundle("gz2")
    assert open_bundle(f"gz2@sha256:{opened.sha256}").sha256 == opened.sha256
    with pytest.raises(InputError, match="not the pinned"):
        open_bundle(f"gz2@sha256:{'0' * 64}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "neither config.json"),
        (
            lambda f: [p.unlink() for p in f.glob("*mo*l.*")],
            "neither model.safetensors nor pytorch_model.bin",
        ),
        (lambda f: (f / "config.json").write_text("{"), "does not describe a model"),
        (lambda f: (f / "config.json").write_text("[]"), "does not describe a model"),
        (lambda f: (f / "config.json").write_text('{"num_classes": 0}'), "it has no architecture"),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut"), "not a safetensors file"),
    ],
)
def test_a_damaged_folder_is_explained(copy, change, message):
    change(copy)
    with pytest.raises(InputError, match=message):
        read_weights(str(copy))


def test_an_architecture_that_timm_lacks_is_answered_with_the_nearest(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"architecture": "test_resnett"}))
    with pytest.raises(InputError, match="Did you mean 'test_resnet'"):
        open_bundle(str(copy))


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.ckpt", "w.pth", "w.pt", "w.bin", "w.pkl"])
def test_nothing_in_a_pickle_runs(tmp_path, name):
    trap = tmp_path / "it ran"
    torch.save({"state_dict": {}, "hyper_parameters": Touches(trap)}, tmp_path / name)
    with pytest.raises(InputError, match="pickled weights are never loaded"):
        read_weights(str(tmp_path / name))
    assert not trap.exists()
    torch.load(tmp_path / name, weights_only=False)
    assert trap.exists(), "the trap is no trap"


@pytest.mark.parametrize("kind", ["module", "training", "script", "noise", "empty"])
def test_what_is_no_plain_state_dict_is_refused(tmp_path, kind):
    file = tmp_path / "w.pth"
    layer = torch.nn.Linear(2, 2)
    match kind:
        case "module":
            torch.save(layer, file)
        case "training":
            torch.save({"state_dict": layer.state_dict(), "epoch": 3}, file)
        case "script":
            torch.jit.save(torch.jit.script(layer), file)
        case "noise":
            file.write_bytes(b"noise" * 100)
        case "empty":
            file.write_bytes(b"")
    with pytest.raises(InputError, match="pickled weights are never loaded"):
        read_weights(str(file))


def test_the_recipe_of_the_refusal_converts_a_checkpoint(published, tmp_path, monkeypatch):
    state = load_file(published / "model.safetensors")
    lightning = {f"encoder.{k}": v for k, v in state.items()} | {"head.weight": torch.zeros(3)}
    torch.save({"state_dict": lightning, "hyper_parameters": Touches(tmp_path / "t")}, tmp_path / "x.ckpt")
    with pytest.raises(InputError) as refusal:
        read_weights(str(tmp_path / "x.ckpt"))
    recipe = "\n".join(line.strip() for line in refusal.value.fix.splitlines()[1:])
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    assert same(read_weights("model.safetensors").state, published / "model.safetensors")


def test_a_single_file_is_no_bundle_and_the_refusal_says_why(published, tmp_path):
    torch.save({}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="pickled weights are never loaded"):
        open_bundle(str(tmp_path / "x.ckpt"))
    with pytest.raises(InputError, match="does not say which encoder"):
        open_bundle(str(published / "model.safetensors"))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file of weights"):
        read_weights(str(tmp_path / "none.safetensors"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no server behind it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    serve_at(monkeypatch, "http://127.0.0.1:9")
    return tmp_path / "cache"


def serve_at(monkeypatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_files_to_download_are_told_at_once(cache, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.monotonic()
    with pytest.raises(ResourceError) as error:
        open_bundle(f"hf_hub:{REPOSITORY}@v2")
    assert time.monotonic() - start < 10
    text = str(error.value)
    assert ("HF_HUB_OFFLINE is set" in text) == offline
    assert f"hf download {REPOSITORY} --revision v2" in text
    assert all(name in text for name in ("config.json", "model.safetensors", "pytorch_model.bin"))
    assert "give ./small-encoder instead" in text


def test_the_cache_is_asked_first(cache, published, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = cache / "models--somebody--small-encoder"
    shutil.copytree(published, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    for address in (f"hf_hub:{REPOSITORY}", f"hf-hub:{REPOSITORY}", f"hf_hub:{REPOSITORY}@{COMMIT}"):
        opened = open_bundle(address)
        assert opened.uri == f"hf_hub:{REPOSITORY}@{COMMIT}"
        assert opened.name == "small-encoder"
        assert opened.sha256 == digest_of(published / "model.safetensors")
    assert open_bundle(opened.uri).record == opened.record, "another node would find another bundle"


def test_an_address_of_another_form_is_refused():
    with pytest.raises(InputError, match="no address on the hub"):
        open_bundle("hf_hub:zoobot")


@pytest.fixture
def hub(cache, copy, monkeypatch):
    """A server that answers as the hub does, for one repository at one commit."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            if self.path == "/":
                return self.send(200, b"")
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            if repository != REPOSITORY:
                return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
            if revision not in ("main", COMMIT):
                return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            if not (copy / name).is_file():
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            data = (copy / name).read_bytes()
            return self.send(
                200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            )

        def send(self, status, data, headers=()):
            self.send_response(status)
            for key, value in {"Content-Length": len(data), **dict(headers)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    serve_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield copy
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kept", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_is_downloaded_once(hub, kept, monkeypatch):
    for name in {"model.safetensors", "pytorch_model.bin"} - {kept}:
        (hub / name).unlink()
    opened = open_bundle(f"hf_hub:{REPOSITORY}")
    assert opened.sha256 == digest_of(hub / kept)
    assert opened.uri == f"hf_hub:{REPOSITORY}@{COMMIT}"
    serve_at(monkeypatch, "http://127.0.0.1:9")
    assert open_bundle(f"hf_hub:{REPOSITORY}").sha256 == opened.sha256


@pytest.mark.parametrize("address", ["somebody/else", f"{REPOSITORY}@v9"])
def test_what_the_hub_does_not_have_is_said(hub, address):
    with pytest.raises(InputError, match=r"the hub has no model\.safetensors"):
        open_bundle(f"hf_hub:{address}")


def test_a_repository_without_weights_is_said(hub):
    (hub / "model.safetensors").unlink()
    (hub / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"the hub has no model\.safetensors"):
        open_bundle(f"hf_hub:{REPOSITORY}")


def test_one_folder_is_one_bundle_by_whatever_path(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    relative, absolute = open_bundle("small-encoder"), open_bundle(str(copy))
    assert relative.record == absolute.record
    assert bundle_address(relative) == bundle_address(absolute) == str(copy)


def test_an_encoder_is_sent_along_with_a_job(copy, tmp_path, monkeypatch):
    opened = open_bundle(str(copy))
    with staged([f"{copy}@sha256:{opened.sha256}", f"hf_hub:{REPOSITORY}"]) as (package, (name, address)):
        monkeypatch.setattr("surveyproc.models.bundle.SHIPPED", package / "bundles")
        there = open_bundle(name)
    assert there.sha256 == opened.sha256
    assert there.record["arguments"] == opened.record["arguments"]
    assert address == f"hf_hub:{REPOSITORY}", "nodes have the hub or its cache"
    assert not is_local(address)
