"""Downloads from a local server that fails on purpose: the tree ends complete, or what is missing is listed."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection

from d3ssl.data.open_images import card as card_module
from d3ssl.data.open_images import download as download_module
from d3ssl.data.open_images.build import build_benchmark
from d3ssl.data.open_images.config import BuildConfig
from d3ssl.data.open_images.download import DownloadConfig, download_images
from d3ssl.data.open_images.fetch import FetchError, Patience, check_jpeg, fetch
from d3ssl.data.open_images.verify import VerifyConfig, verify_benchmark
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError, InputError
from d3ssl.files import read_json
from d3ssl.seeds import numpy_generator
from tests.data.test_open_images_layout import random_rows, write_release

TRAIN, VAL = 60, 6


def jpeg(name: str, mode: str = "RGB") -> bytes:
    """A picture of its own size for every name."""
    generator = numpy_generator("jpeg", name)
    width, height = (int(side) for side in generator.integers(20, 60, size=2))
    pixels = generator.integers(0, 256, size=(height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


class Bucket(ThreadingHTTPServer):
    """Serves ``jpeg(name)`` at every path. ``faults``: path → what goes wrong, once for each entry of the list."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.done = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/bucket"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


class Answer(BaseHTTPRequestHandler):
    server: Bucket

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        name = self.path.removeprefix("/bucket/")
        with self.server.lock:
            self.server.asked[name] += 1
            self.server.agents.add(self.headers["User-Agent"])
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            faults = self.server.faults.get(name, [])
            fault = faults.pop(0) if faults else ""
        try:
            self.answer(name, fault)
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def answer(self, name: str, fault: str) -> None:
        data = jpeg(name)
        length = len(data)
        if fault.isdigit():
            self.send_response(int(fault))
            if fault == "429":
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "slow":
            self.server.done.wait(20)
        elif fault == "hang up":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        elif fault == "other image":
            data = jpeg("another")
            length = len(data)
        elif fault == "page":
            data, length = b"<html>sorry</html>", 18
        elif fault in ("cut", "cut silently"):
            data = data[: length // 2]
            length = length if fault == "cut" else -1
        self.send_response(200)
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Bucket]:
    bucket = Bucket()
    thread = threading.Thread(target=bucket.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield bucket
    finally:
        bucket.done.set()
        bucket.shutdown()
        bucket.server_close()
        thread.join()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    rows = {"train": random_rows(300), "validation": random_rows(60, "validation")}
    release = write_release(folder / "release", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_module, "draw_plots", lambda *_: {})
        config = BuildConfig(images=TRAIN, val_images=VAL, test_images=0, min_class_images=5)
        build_benchmark(release, folder / "mini", config)
    return folder / "mini"


@pytest.fixture
def mini(tmp_path: Path, finished: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "mini")


def names_of(mini: Path, split: str = "train") -> list[str]:
    return [f"{split}/{name}.jpg" for name in (mini / split / "ids.txt").read_text().splitlines()]


def config_for(bucket: Bucket, attempts: int = 1, timeout: float = 5.0, **options: object) -> DownloadConfig:
    options = {"workers": 4, "backoff": 0.001, **options}
    return DownloadConfig(base_url=bucket.address, attempts=attempts, timeout=timeout, **options)  # type: ignore[arg-type]


def on_disk(mini: Path) -> dict[str, bytes]:
    return {
        path.relative_to(mini).as_posix().replace("/images/", "/"): path.read_bytes() for path in mini.rglob("*.jpg")
    }


def missing_in(mini: Path) -> dict[str, str]:
    pairs = [line.split("\t") for line in (mini / "missing.txt").read_text().splitlines()]
    return dict(pairs)  # type: ignore[arg-type]


def assert_complete(mini: Path, splits: tuple[str, ...] = ("train", "validation")) -> None:
    names = [name for split in splits for name in names_of(mini, split)]
    assert on_disk(mini) == {name: jpeg(name) for name in names}
    assert not (mini / "missing.txt").exists()
    assert not list(mini.rglob(".*"))  # no journal, no half file
    found = verify_benchmark(mini, VerifyConfig())
    for split in splits:
        assert found[split]["downloaded"] == found[split]["images"] == len(names_of(mini, split))


def test_a_fifth_of_requests_failing_some_cut_one_checksum_wrong(tmp_path: Path, mini: Path, bucket: Bucket) -> None:
    """One attempt an image: the failed ones are listed; the second call asks for them alone, and so on."""
    names = names_of(mini) + names_of(mini, "validation")
    failing = [names[place] for place in numpy_generator("failing").permutation(len(names))[: len(names) // 5].tolist()]
    kinds = ["500", "503", "404", "hang up", "slow", "page", "cut", "cut silently"]
    bucket.faults = {name: [kinds[number % len(kinds)]] for number, name in enumerate(failing)}
    wrong = next(name for name in names if name not in failing)
    bucket.faults[wrong] = ["other image", "other image"]
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"{hashlib.sha256(jpeg(name)).hexdigest()}  {name}\n" for name in names))
    config = config_for(bucket, timeout=1.5, checksums=str(sums))
    with pytest.raises(InputError, match=rf"missing\.txt: {len(failing) + 1} of 66 images are missing, such as"):
        download_images(mini, config)
    assert missing_in(mini).keys() == {*failing, wrong}
    assert missing_in(mini)[wrong] == "its checksum is another than the wanted one"
    assert on_disk(mini) == {name: jpeg(name) for name in names if name not in (*failing, wrong)}
    assert bucket.asked == dict.fromkeys(names, 1)
    with pytest.raises(InputError, match="their download is not finished"):
        verify_benchmark(mini, VerifyConfig())

    bucket.asked.clear()
    with pytest.raises(InputError, match=r"1 of 66 images are missing.*checksum.*\n.*only these are asked for"):
        download_images(mini, config)
    assert bucket.asked == dict.fromkeys((*failing, wrong), 1)
    assert missing_in(mini).keys() == {wrong}

    bucket.asked.clear()
    download_images(mini, config)
    assert bucket.asked == {wrong: 1}
    assert_complete(mini)

    bucket.asked.clear()
    download_images(mini, config)
    assert bucket.asked == {}
    assert_complete(mini)


def test_further_attempts_make_it_complete_at_once(mini: Path, bucket: Bucket) -> None:
    names = names_of(mini) + names_of(mini, "validation")
    kinds = ("500", "cut", "429", "hang up", "page", "cut silently")
    bucket.faults = {name: [kind, "503"] for name, kind in zip(names, kinds, strict=False)}
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Event, "wait", no_wait(threading.Event.wait, waited))
        download_images(mini, config_for(bucket, attempts=3, user_agent="d3ssl (test@example.org)"))
    assert {name: count for name, count in bucket.asked.items() if count > 1} == dict.fromkeys(names[: len(kinds)], 3)
    assert_complete(mini)
    assert bucket.agents == {"d3ssl (test@example.org)"}
    assert bucket.most_at_once <= 4
    assert 7.0 in waited  # the server asked for it


def no_wait(wait, waited: list[float]):  # type: ignore[no-untyped-def]
    """``Event.wait`` that remembers long waits instead of waiting."""

    def stand_in(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout is not None and timeout > 1:
            waited.append(timeout)
            return event.is_set()
        return wait(event, timeout)

    return stand_in


def test_annotations_are_in_pixels_after_the_download(mini: Path, bucket: Bucket) -> None:
    """Boxes are those of the nominal size, scaled; torchvision and d3ssl open the images with them."""
    before = read_json(mini / "train/annotations.json")
    download_images(mini, config_for(bucket))
    after = read_json(mini / "train/annotations.json")
    images = {}
    for entry in after["images"]:
        with Image.open(io.BytesIO(jpeg(f"train/{entry['file_name']}"))) as image:
            assert (entry["width"], entry["height"], entry["size_known"]) == (*image.size, True)
            images[entry["id"]] = np.array([*image.size, *image.size]) / 1024
    assert [entry["id"] for entry in after["annotations"]] == [entry["id"] for entry in before["annotations"]]
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        np.testing.assert_allclose(new["bbox"], np.array(old["bbox"]) * images[new["image_id"]], atol=2e-4)
        assert new["area"] == pytest.approx(new["bbox"][2] * new["bbox"][3], abs=0.1)
        assert {key: new[key] for key in new if key not in ("bbox", "area")} == {
            key: old[key] for key in old if key not in ("bbox", "area")
        }
    theirs = CocoDetection(str(mini / "train/images"), str(mini / "train/annotations.json"))
    ours = open_images(mini / "train")
    assert len(theirs) == len(ours) == TRAIN
    picture, objects = theirs[5]
    assert picture.size == (after["images"][5]["width"], after["images"][5]["height"])
    assert objects
    assert len(COCO(str(mini / "validation/annotations.json")).imgs) == VAL


def test_images_that_are_gone_can_be_left_out(mini: Path, bucket: Bucket) -> None:
    names = names_of(mini)
    bucket.faults = {name: ["404"] * 9 for name in names[3:5]}
    with pytest.raises(InputError, match="2 of 66 images are missing"):
        download_images(mini, config_for(bucket, attempts=5))
    assert bucket.asked[names[3]] == 1  # gone is gone: no second attempt
    assert not read_json(mini / "train/annotations.json")["images"][0]["size_known"]
    assert read_json(mini / "validation/annotations.json")["images"][0]["size_known"]
    download_images(mini, config_for(bucket, accept_missing=True))
    assert missing_in(mini) == dict.fromkeys(names[3:5], "the server answers 404 Not Found")
    found = verify_benchmark(mini, VerifyConfig())
    assert (found["train"]["images"], found["train"]["downloaded"]) == (TRAIN, TRAIN - 2)
    document = read_json(mini / "train/annotations.json")
    assert [f"train/{entry['file_name']}" for entry in document["images"]] == names[:3] + names[5:]
    assert not {4, 5} & {entry["image_id"] for entry in document["annotations"]}
    assert len(open_images(mini / "train")) == TRAIN - 2
    bucket.faults.clear()
    download_images(mini, config_for(bucket))
    assert_complete(mini)


def test_one_split_at_a_time(mini: Path, bucket: Bucket) -> None:
    bucket.faults = {names_of(mini)[0]: ["500"]}
    with pytest.raises(InputError, match="1 of 60 images are missing"):
        download_images(mini, config_for(bucket, splits=("train",)))
    with pytest.raises(InputError, match="1 of 6 images are missing, such as train/"):  # still
        download_images(mini, config_for(bucket, splits=("validation",)))
    bucket.asked.clear()
    download_images(mini, config_for(bucket, splits=("train",)))
    assert bucket.asked == {names_of(mini)[0]: 1}
    assert_complete(mini)
    with pytest.raises(InputError, match="has no split test"):
        download_images(mini, config_for(bucket, splits=("test",)))


def test_a_download_that_was_killed_goes_on(mini: Path, bucket: Bucket) -> None:
    """Half the images are there; of these, one has no record, one is damaged, and the journal's last line is cut."""
    names = names_of(mini)
    bucket.faults = {name: ["500"] for name in names[30:]}
    with pytest.raises(InputError):
        download_images(mini, config_for(bucket, splits=("train",)))
    journal = mini / "train/.images.journal"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 30
    journal.write_text("".join(lines[:29]) + lines[29][:25])
    damaged = mini / "train/images" / Path(names[2]).name
    damaged.write_bytes(damaged.read_bytes()[:-40])
    removed = mini / "train/images" / Path(names[7]).name
    removed.unlink()
    (mini / "train/images" / f".{removed.name}.123.tmp").write_bytes(b"half")
    bucket.asked.clear()
    download_images(mini, config_for(bucket, splits=("train",)))
    assert bucket.asked == dict.fromkeys([names[2], names[7], *names[30:]], 1)
    (mini / "train/images" / f".{removed.name}.123.tmp").unlink()
    assert_complete(mini, ("train",))


def test_a_server_that_is_down_ends_the_download_early(
    mini: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its trouble begins in the middle. What was not asked for is listed too."""
    monkeypatch.setattr(download_module, "STOP_AFTER", 5)
    names = names_of(mini)
    bucket.faults = {name: ["500"] for name in names[10:]}
    with pytest.raises(InputError, match="50 of 60 images are missing"):
        download_images(mini, config_for(bucket, splits=("train",), workers=1))
    assert len(bucket.asked) < 10 + 5 + 2 * 32 - 1 and len(bucket.asked) < 60
    assert missing_in(mini).keys() == set(names[10:])
    assert "the server answers 500" in missing_in(mini)[names[10]]
    assert missing_in(mini)[names[-1]] == "not asked for: the download was stopped"


def test_a_wrong_address_ends_early_but_single_images_that_are_gone_do_not(
    mini: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "STOP_AFTER", 5)
    names = names_of(mini)
    bucket.faults = {name: ["404"] for name in names}
    with pytest.raises(InputError, match="60 of 60 images are missing"):
        download_images(mini, config_for(bucket, splits=("train",), workers=1))
    assert len(bucket.asked) < 60
    bucket.asked.clear()
    bucket.faults = {name: ["404"] for name in names[1:]}
    with pytest.raises(InputError, match="59 of 60 images are missing"):
        download_images(mini, config_for(bucket, splits=("train",), workers=1))
    assert len(bucket.asked) == 60
    dead = DownloadConfig(base_url="http://127.0.0.1:9/", attempts=1, workers=1)
    with pytest.raises(InputError, match="connection failed"):
        download_images(mini, dead)


def test_verify_reads_the_images(mini: Path, bucket: Bucket) -> None:
    download_images(mini, config_for(bucket))
    path = mini / "train/images" / Path(names_of(mini)[4]).name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"{path.name}: has another size than the downloaded file"):
        verify_benchmark(mini, VerifyConfig(decode=False))
    path.write_bytes(whole[:-1] + b"x")
    verify_benchmark(mini, VerifyConfig(decode=False))
    with pytest.raises(InputError, match=rf"{path.name}: was changed since it was downloaded"):
        verify_benchmark(mini, VerifyConfig())
    path.unlink()
    with pytest.raises(InputError, match=rf"lacks 1 of 60 images, such as {path.name}"):
        verify_benchmark(mini, VerifyConfig())
    download_images(mini, config_for(bucket))
    assert_complete(mini)


def test_a_damaged_benchmark_is_not_downloaded_for(mini: Path, bucket: Bucket) -> None:
    """A file that a download writes may be from one that was killed; the others must be whole."""
    (mini / "train/annotations.json").write_text("{}")
    with pytest.raises(InputError, match=r"train/annotations\.json: was changed"):
        verify_benchmark(mini, VerifyConfig())
    download_images(mini, config_for(bucket))
    assert_complete(mini)
    (mini / "train/ids.txt").write_text("../../../etc/passwd\n")
    bucket.asked.clear()
    with pytest.raises(InputError, match=r"train/ids\.txt: was changed"):
        download_images(mini, config_for(bucket))
    (mini / "checksums.txt").unlink()
    with pytest.raises(InputError, match="is no finished benchmark"):
        download_images(mini, config_for(bucket))
    assert bucket.asked == {}


def test_a_full_disk_ends_the_download(mini: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    write = download_module.write_atomically

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        with write(path) as temporary:
            yield temporary
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(download_module, "write_atomically", full)
    with pytest.raises(D3sslError, match="the disk is full"):
        download_images(mini, config_for(bucket))
    assert on_disk(mini) == {}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("base_url", "file:///etc"),
        ("base_url", "bucket/train"),
        ("splits", ("trian",)),
        ("workers", 33),
        ("workers", 0),
        ("timeout", 0.0),
        ("attempts", 0),
        ("backoff", -1.0),
        ("user_agent", "a\nb"),
    ],
)
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    options = {"base_url": "https://example.org/x", option: value}
    with pytest.raises(InputError, match=f"option {option} = "):
        DownloadConfig(**options).check()  # type: ignore[arg-type]


def test_waits_double_and_differ(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    """backoff·2^k, at most half of it less, at most a minute."""
    waits: dict[str, list[float]] = {"train/a.jpg": [], "train/b.jpg": []}
    for name, waited in waits.items():
        bucket.faults[name] = ["500"] * 9

        class Stopped(threading.Event):
            def wait(self, timeout: float | None = None, waited: list[float] = waited) -> bool:
                waited.append(timeout or 0.0)
                return False

        patience = Patience(timeout_s=5.0, attempts=9, backoff_s=1.0, user_agent="d3ssl")
        with pytest.raises(FetchError, match="500 Internal Server Error"):
            fetch(f"{bucket.address}/{name}", patience, None, Stopped())
        for attempt, seconds in enumerate(waited):
            assert min(60, 2**attempt) / 2 <= seconds <= min(60, 2**attempt)
        assert len(waited) == 8
    assert waits["train/a.jpg"] != waits["train/b.jpg"]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_files_of_all_colours_are_decoded_whole(mode: str) -> None:
    data = jpeg("colours", mode)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    assert check_jpeg(data) == (height, width)
    for broken in (data[: len(data) // 2], b"", b"GIF89a", data[:100] + bytes(len(data) - 100)):
        with pytest.raises(FetchError, match="is no whole JPEG file"):
            check_jpeg(broken)


def test_a_turned_image_has_its_upright_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    assert check_jpeg(buffer.getvalue()) == (40, 30)  # height 40
