"""Downloads from a server on localhost that misbehaves on request."""

import contextlib
import hashlib
import io
import shutil
import signal
import socket
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from datasets.avmnist import download as dl
from utils.errors import DataError
from utils.files import LockedError, locked
from utils.reading import read_json

DATA = bytes(range(256)) * 4000  # 1 MB: several blocks


@dataclass
class Server:
    """Files of the server and how it behaves; `asked` lists the path of every request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # bytes sent before the connection is cut, by request
    busy: int = 0  # answers 503 so many times first
    raw: dict[str, list[bytes]] = field(default_factory=dict)  # whole answers, a second between their parts
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        if request.path in self.raw:
            with contextlib.suppress(OSError):
                for part in self.raw[request.path]:
                    request.wfile.write(part)
                    time.sleep(0.1)
            return None
        if self.busy:
            self.busy -= 1
            return request.send_error(503)
        if request.path not in self.files:
            return request.send_error(404)
        body = self.files[request.path]
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setattr(dl, "WAIT", 0.0)
    yield state
    http.shutdown()
    http.server_close()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FSDD = {
    "fsdd-1.0/recordings/0_a_0.wav": DATA,
    "fsdd-1.0/recordings/1_a_0.wav": b"one",
    "fsdd-1.0/README.md": b"read",
}
ESC50 = {"ESC-50-master/meta/esc50.csv": b"filename", "ESC-50-master/audio/1-1-A-0.wav": b"dog"}


@pytest.fixture
def originals(server, monkeypatch):
    """The six originals as small files on the server; returns the `urls` that lead to them."""
    for name, original in dl.ORIGINALS.items():
        content = name.encode() * 50
        if name.endswith(".zip"):
            content = zipped(FSDD if name == "fsdd.zip" else ESC50)
        else:
            checksum = "md5:" + hashlib.md5(content).hexdigest()
            monkeypatch.setitem(dl.ORIGINALS, name, replace(original, checksum=checksum))
        server.files[f"/{name}"] = content
    return {name: f"{server.url}/{name}" for name in dl.ORIGINALS}


def names(folder):
    """All files but the lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return sorted(str(path.relative_to(folder)) for path in paths)


UNPACKED = [
    "esc50/audio/1-1-A-0.wav",
    "esc50/meta/esc50.csv",
    "fsdd/recordings/0_a_0.wav",
    "fsdd/recordings/1_a_0.wav",
]
WHOLE = sorted([*UNPACKED, "checksums.json"] + [name for name in dl.ORIGINALS if name.startswith("mnist/")])


def test_originals_are_fetched_unpacked_and_not_asked_for_again(server, originals, tmp_path, capfd):
    folders = dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert folders == {f"{name}_dir": tmp_path / name for name in ("mnist", "fsdd", "esc50")}
    assert names(tmp_path) == WHOLE  # no README.md, no archive, no temporary
    assert (tmp_path / "fsdd/recordings/0_a_0.wav").read_bytes() == DATA
    assert len(server.asked) == 6
    dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert len(server.asked) == 6
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown(server, originals, tmp_path, capfd):
    dl.download_originals(tmp_path, urls=originals)
    shown = capfd.readouterr().err
    assert "train-images-idx3-ubyte.gz: 100%" in shown
    assert "unpack esc50.zip: 100%" in shown


def test_a_later_run_fetches_only_what_is_missing(server, originals, tmp_path):
    missing = server.files.pop("/esc50.zip")
    with pytest.raises(DataError, match=r"esc50.zip: the server answers 404 .* download it yourself to .*esc50.zip"):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert names(tmp_path) == [name for name in WHOLE if not name.startswith("esc50")]
    assert list(read_json(tmp_path / "checksums.json")) == ["fsdd.zip"]
    server.files["/esc50.zip"] = missing
    dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert server.asked.count("/fsdd.zip") == 1
    assert names(tmp_path) == WHOLE


def test_an_archive_downloaded_by_hand_is_unpacked(server, originals, tmp_path):
    (tmp_path / "fsdd.zip").write_bytes(zipped(FSDD))
    dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert "/fsdd.zip" not in server.asked
    assert names(tmp_path) == WHOLE


def test_a_folder_of_something_else_is_left_alone(server, originals, tmp_path):
    (tmp_path / "fsdd").mkdir()
    (tmp_path / "fsdd/notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"fsdd must contain the folders \['recordings'\].*move it away"):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert (tmp_path / "fsdd/notes.txt").read_text() == "mine"


def test_a_cut_connection_is_tried_again(server, tmp_path):
    server.files["/f"], server.cuts = DATA, [300_000, 400_000]
    dl.download(f"{server.url}/f", tmp_path / "f", verbose=False)
    assert (tmp_path / "f").read_bytes() == DATA
    assert server.asked == ["/f"] * 3


def test_a_connection_that_always_breaks_leaves_nothing(server, tmp_path):
    server.files["/f"], server.cuts = DATA, [100, 100, 100, 400]
    broken = r"/f: .*400 bytes read, 1023600 more expected.*, 4 times; download it yourself to .*f,"
    with pytest.raises(DataError, match=broken) as error:
        dl.download(f"{server.url}/f", tmp_path / "f", verbose=False)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dl, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/f"
        with pytest.raises(DataError, match=r"/f: .*timed out.*, 4 times; download it yourself"):
            dl.download(url, tmp_path / "f", verbose=False)
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again_and_an_absent_one_is_named(server, tmp_path):
    server.files["/f"], server.busy = DATA, 2
    dl.download(f"{server.url}/f", tmp_path / "f", verbose=False)
    assert (tmp_path / "f").read_bytes() == DATA
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/g: .*refused, 4 times; download it yourself"):
        dl.download("http://127.0.0.1:9/g", tmp_path / "g", verbose=False)


def test_a_wrong_checksum_removes_the_download(server, originals, tmp_path):
    name = "mnist/train-labels-idx1-ubyte.gz"
    server.files[f"/{name}"] = b"other"
    wanted, found = dl.ORIGINALS[name].checksum, hashlib.md5(b"other").hexdigest()
    with pytest.raises(DataError, match=f"train-labels.* must have {wanted}, but has md5:{found}"):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert names(tmp_path) == ["mnist/train-images-idx3-ubyte.gz"]


def test_a_file_of_the_users_with_a_wrong_checksum_stays(server, originals, tmp_path):
    mine = tmp_path / "mnist/train-images-idx3-ubyte.gz"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(DataError, match="delete it to download it again"):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert mine.read_bytes() == b"mine"
    assert not server.asked


def test_the_temporary_of_a_killed_download_is_removed(server, originals, tmp_path):
    for name in ("fsdd.zip", "mnist/train-images-idx3-ubyte.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        path = tmp_path / name
        path.with_name(f".{path.name}.0123456789abcdef.tmp").write_bytes(b"half")
    dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert names(tmp_path) == WHOLE


def test_one_process_at_a_time_downloads(server, originals, tmp_path):
    with locked(tmp_path), pytest.raises(LockedError, match=str(tmp_path)):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert not server.asked


BROKEN = {
    "no zip": (b"<html>busy</html>", "not a valid zip"),
    "cut": (zipped(FSDD)[:-30], "not a valid zip"),
    "bad byte": (zipped(FSDD, zipfile.ZIP_STORED).replace(b"one", b"two"), "not a valid zip"),
    "lacks members": (zipped({"x/README.md": b""}), r"must hold recordings/\*.wav"),
    "parent folder": (
        zipped(FSDD | {"x/../../evil.wav": b"x"}),
        r"plain relative names, but has 'x/../../evil.wav'",
    ),
    "absolute": (zipped(FSDD | {"/evil.wav": b"x"}), "plain relative names"),
    "long name": (zipped(FSDD | {f"x/recordings/{'x' * 300}.wav": b"x"}), "plain relative names"),
    "large": (zipped(FSDD | {"x/recordings/zeros.wav": bytes(3 << 20)}), "at most 10,000 files of 2,000,000 bytes"),
    "other compression": (zipped(FSDD, zipfile.ZIP_LZMA), "compressed in an unexpected way"),
    "number of bytes": (zipped(FSDD).replace(b"PK\x01\x02", b"PK\x01\x03"), "not a valid zip"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_or_hostile_zip_leaves_nothing_and_is_fetched_again(server, originals, tmp_path, monkeypatch, case):
    good, (server.files["/fsdd.zip"], message) = server.files["/fsdd.zip"], BROKEN[case]
    monkeypatch.setitem(dl.ORIGINALS, "fsdd.zip", replace(dl.ORIGINALS["fsdd.zip"], unpacked=2_000_000))
    folder = tmp_path / "data"
    with pytest.raises(DataError, match=message):
        dl.download_originals(folder, verbose=False, urls=originals)
    assert names(tmp_path) == [f"data/{name}" for name in WHOLE if name.startswith("mnist")]
    assert not (folder / "fsdd").exists()
    server.files["/fsdd.zip"] = good
    dl.download_originals(folder, verbose=False, urls=originals)
    assert names(folder) == WHOLE


def test_the_first_download_of_an_archive_determines_its_checksum(server, originals, tmp_path):
    dl.download_originals(tmp_path, verbose=False, urls=originals)
    first = "sha256:" + hashlib.sha256(server.files["/fsdd.zip"]).hexdigest()
    assert read_json(tmp_path / "checksums.json")["fsdd.zip"] == first
    shutil.rmtree(tmp_path / "fsdd")
    server.files["/fsdd.zip"] = zipped(FSDD | {"fsdd-1.0/recordings/1_a_0.wav": b"two"})
    with pytest.raises(DataError, match=rf"but the first download had {first}; it was removed; .* delete .*checksums"):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert not (tmp_path / "fsdd.zip").exists()
    (tmp_path / "checksums.json").unlink()
    dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert (tmp_path / "fsdd/recordings/1_a_0.wav").read_bytes() == b"two"


OK = b"HTTP/1.1 200 OK\r\n"
ODD = {
    "length in words": [OK + b"Content-Length: many\r\n\r\nab"],
    "negative length": [OK + b"Content-Length: -5\r\n\r\nab"],
    "two lengths": [OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    "damaged chunks": [OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nab"],
    "unasked compression": [OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab"],
    "no HTTP": [b"220 ftp ready\r\n\r\n"],
    "status in words": [b"HTTP/1.1 fine\r\n\r\n"],
    "long header": [OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n"],
    "redirect to ftp": [b"HTTP/1.1 302 Found\r\nLocation: ftp://example.org/f\r\n\r\n"],
    "redirect to a file": [b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"],
    "redirect to nothing": [b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n"],
    "redirect to no name": [b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe..:99999/\r\n\r\n"],
    "redirect to itself": [b"HTTP/1.1 302 Found\r\nLocation: /f\r\nContent-Length: 0\r\n\r\n"],
    "too many bytes": [OK + b"\r\n" + bytes(2000)],
    "one byte at a time": [OK + b"Content-Length: 500\r\n\r\n"] + [b"x"] * 500,
    "header without end": [OK] + [b"X: x\r\n"] * 500,
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_answer_is_one_error_and_leaves_nothing(server, tmp_path, monkeypatch, case):
    server.raw["/f"] = ODD[case]
    monkeypatch.setattr(dl, "LONGEST", 1.5)
    with pytest.raises(DataError, match="/f") as error:
        dl.download(f"{server.url}/f", tmp_path / "f", "md5:" + "0" * 32, verbose=False, most=1000)
    words = {"too many bytes": "at most 1,000 bytes, but sends more", "one byte at a time": "takes longer than"}
    words |= {"header without end": "takes longer than", "redirect to ftp": "not https: ftp://"}
    assert words.get(case, "") in str(error.value)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []
    assert not signal.getitimer(signal.ITIMER_REAL)[0]


def test_a_secure_address_is_not_left_for_an_open_one():
    answer = SimpleNamespace(is_redirect=True, url="https://a.org/f", headers={"location": "http://a.org/f"})
    with pytest.raises(DataError, match=r"https://a\.org/f redirects to an address that is not https"):
        dl._check_redirect(answer)
    answer.headers["location"] = "//b.org/f"
    dl._check_redirect(answer)


def test_killed_while_unpacking(server, originals, tmp_path, monkeypatch):
    """A kill leaves the archive and the hidden folder behind; the next run starts over."""

    class Killed(BaseException):
        pass

    def kill(path, target):
        raise Killed

    monkeypatch.setattr(Path, "rename", kill)
    monkeypatch.setattr(dl.shutil, "rmtree", lambda *args, **kwargs: None)
    with pytest.raises(Killed):
        dl.download_originals(tmp_path, verbose=False, urls=originals)
    assert not (tmp_path / "fsdd").exists()
    assert (tmp_path / "fsdd.zip").exists()
    (tmp_path / ".fsdd.partial/new/recordings/9_old_9.wav").write_bytes(b"of an older archive")
    monkeypatch.undo()
    dl.unpack(tmp_path / "fsdd.zip", tmp_path / "fsdd", ("recordings/*.wav",), verbose=False)
    assert [name for name in names(tmp_path) if "fsdd/" in name] == UNPACKED[2:]
    assert not (tmp_path / ".fsdd.partial").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full, which Linux has")
def test_a_full_disk_is_an_error_that_names_the_file(server, tmp_path, monkeypatch):
    server.files["/f"] = b"little"  # buffered: the disk refuses it only at the end
    monkeypatch.setattr("utils.files.secrets.token_hex", lambda count: "0")
    (tmp_path / ".f.0.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left.*/f'"):
        dl.download(f"{server.url}/f", tmp_path / "f", verbose=False)
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_published_addresses_are_secure_and_mnist_is_checked():
    assert all(original.url.startswith("https://") for original in dl.ORIGINALS.values())
    checked = [original.checksum for original in dl.ORIGINALS.values() if not original.members]
    assert len(checked) == 4
    assert all(len(checksum) == len("md5:") + 32 for checksum in checked)
