"""Files that are digested while they are written."""

import hashlib
import threading

import pytest

from surveyproc.hashing import BESIDE, MOST_WAITING, WRITEBACK, HashingFile
from surveyproc.storage import Storage


def pieces(*sizes):
    return [bytes([n % 251]) * size for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "sizes",
    [
        (),
        (3, 5, 7),
        (10, BESIDE, 4, BESIDE + 1, 1),
        (BESIDE,) * (3 * MOST_WAITING),
        (1 << 20,) * (WRITEBACK // 2**20 + 2),
    ],
    ids=["nothing", "small", "mixed", "many large", "with writeback"],
)
def test_the_digest_is_that_of_the_file(tmp_path, sizes):
    data = pieces(*sizes)
    with Storage(str(tmp_path)).writing("folder/file.bin") as file:
        for piece in data:
            assert file.write(piece) == len(piece)
            assert file.tell() == file.nbytes
    written = (tmp_path / "folder" / "file.bin").read_bytes()
    assert written == b"".join(data)
    assert file.nbytes == len(written)
    assert file.sha256 == hashlib.sha256(written).hexdigest()


def test_a_buffer_that_is_used_again_is_digested_as_it_was(tmp_path):
    buffer, digest = bytearray(BESIDE), hashlib.sha256()
    with open(tmp_path / "x", "wb") as raw, HashingFile(raw) as file:
        for value in range(20):
            buffer[:] = bytes([value]) * BESIDE
            digest.update(buffer)
            file.write(memoryview(buffer))
    assert file.sha256 == digest.hexdigest()


def test_a_write_that_fails_ends_its_thread(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="No space"), HashingFile(Full()) as file:
        file.write(bytes(BESIDE))
    assert file.closed
    assert set(threading.enumerate()) == before
