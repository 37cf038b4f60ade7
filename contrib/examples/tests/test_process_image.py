"""ProcessImageJob on images that Pillow draws here."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from protojobs import JobQueue
from protojobs.errors import DataInvalid
from protojobs_examples import process_image
from protojobs_examples.process_image import ImageWork, ProcessImageJob, Resize, Thumbnail

SMALL = {"do": "thumbnail", "width": 50, "height": 50}
AS_JPEG = {"do": "convert", "format": "jpeg"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    monkeypatch.setenv("IMAGES_FOLDER", str(folder))
    Image.new("RGB", (200, 100), "navy").save(folder / "in.png")
    return folder


def work(operations: list[object], source: str = "in.png", target: str = "out/result.png") -> dict[str, object]:
    return {"source": source, "target": target, "operations": operations}


class TestOperations:
    def test_a_thumbnail_keeps_the_proportions(self, run: Callable, folder: Path) -> None:
        job = run(ProcessImageJob, work([SMALL]))
        assert (job.status, job.result["width"], job.result["height"]) == ("completed", 50, 25)
        with Image.open(folder / "out" / "result.png") as image:
            assert (image.size, image.format) == ((50, 25), "PNG")

    def test_a_thumbnail_never_enlarges(self, run: Callable) -> None:
        assert run(ProcessImageJob, work([{**SMALL, "width": 900, "height": 900}])).result["width"] == 200

    def test_resize_is_exact(self, run: Callable) -> None:
        result = run(ProcessImageJob, work([{"do": "resize", "width": 30, "height": 70}])).result
        assert (result["width"], result["height"]) == (30, 70)

    def test_a_watermark_changes_the_lower_right_corner_only(self, run: Callable, folder: Path) -> None:
        run(ProcessImageJob, work([{"do": "watermark", "text": "shop"}]))
        with Image.open(folder / "out" / "result.png") as image:
            colours = image.convert("RGB").crop((100, 50, 200, 100)).getcolors()
            assert image.convert("RGB").crop((0, 0, 100, 50)).getcolors() == [(5000, (0, 0, 128))]
        assert colours is not None and len(colours) > 5

    def test_they_are_applied_in_order(self, run: Callable, folder: Path) -> None:
        operations = [{"do": "resize", "width": 120, "height": 120}, SMALL, {"do": "watermark", "text": "x"}, AS_JPEG]
        result = run(ProcessImageJob, work(operations, target="out.jpg")).result
        assert (result["width"], result["height"]) == (50, 50)
        with Image.open(folder / "out.jpg") as image:
            assert image.format == "JPEG"

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
    def test_every_mode_of_image_can_be_marked_and_become_a_jpeg(self, run: Callable, folder: Path, mode: str) -> None:
        Image.new(mode, (60, 60)).save(folder / "odd.tiff")
        operations = [{"do": "resize", "width": 40, "height": 40}, {"do": "watermark", "text": "x"}, AS_JPEG]
        assert run(ProcessImageJob, work(operations, source="odd.tiff", target="odd.jpg")).status == "completed"

    def test_what_is_transparent_becomes_white_in_a_jpeg(self, run: Callable, folder: Path) -> None:
        Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(folder / "clear.png")
        run(ProcessImageJob, work([AS_JPEG], source="clear.png", target="clear.jpg"))
        with Image.open(folder / "clear.jpg") as image:
            assert image.getpixel((5, 5)) == (255, 255, 255)

    def test_the_camera_s_orientation_is_applied(self, run: Callable, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees
        Image.new("RGB", (40, 20)).save(folder / "turned.jpg", exif=exif)
        result = run(ProcessImageJob, work([SMALL], source="turned.jpg")).result
        assert (result["width"], result["height"]) == (20, 40)

    def test_the_data_may_be_typed(self, run: Callable) -> None:
        data = ImageWork(source="in.png", target="t.webp", operations=[Thumbnail(width=9, height=9)])
        assert run(ProcessImageJob, data).status == "completed"


class TestWholeOrNotAtAll:
    def test_running_twice_gives_the_same_image(self, run: Callable, folder: Path) -> None:
        data = work([SMALL, {"do": "watermark", "text": "shop"}])
        run(ProcessImageJob, data)
        first = (folder / "out" / "result.png").read_bytes()
        run(ProcessImageJob, data)
        assert (folder / "out" / "result.png").read_bytes() == first

    def test_a_run_that_dies_while_it_writes_leaves_the_old_image_and_no_half_one(
        self, run: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(ProcessImageJob, work([SMALL]))
        before = (folder / "out" / "result.png").read_bytes()

        def full_disk(fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("protojobs_examples.process_image.os.fsync", full_disk)
        job = run(ProcessImageJob().retry_after(0).retries(1), work([AS_PNG_AGAIN]))
        assert (job.status, job.record.attempts) == ("failed", 2)  # a full disk is worth another try
        assert (folder / "out" / "result.png").read_bytes() == before
        assert [path.name for path in (folder / "out").iterdir()] == ["result.png"]

    def test_progress_is_reported_after_each_step(self, folder: Path) -> None:
        class Context:
            id, claim_seq = "an-id", 1
            reported: list[float] = []

            def cancelled(self) -> bool:
                return False

            def progress(self, share: float) -> None:
                self.reported.append(share)

        data = ImageWork(source="in.png", target="x.png", operations=[Thumbnail(width=9, height=9)] * 3)
        ProcessImageJob().handle(data, Context())
        assert Context.reported == [0.25, 0.5, 0.75, 1.0]


AS_PNG_AGAIN = {"do": "resize", "width": 7, "height": 7}


class TestBadImages:
    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
    def test_what_is_no_image_fails_at_once(self, run: Callable, folder: Path, content: bytes) -> None:
        (folder / "bad.png").write_bytes(content)
        job = run(ProcessImageJob, work([SMALL], source="bad.png"))
        assert (job.status, job.record.attempts) == ("failed", 1)
        assert "ImageRefused" in job.failed.exception

    def test_a_file_that_was_cut_off_fails_at_once(self, run: Callable, folder: Path) -> None:
        Image.effect_noise((100, 100), 50).save(folder / "whole.png")
        (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:3000])
        job = run(ProcessImageJob, work([SMALL], source="cut.png"))
        assert (job.status, job.record.attempts) == ("failed", 1)

    def test_a_decompression_bomb_is_refused_before_it_unpacks(self, run: Callable, folder: Path) -> None:
        header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 6, 0, 0, 0)  # 81 million pixels in 60 bytes
        chunk = b"IHDR" + header
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (folder / "bomb.png").write_bytes(png + b"\x00\x00\x00\x00IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
        job = run(ProcessImageJob, work([SMALL], source="bomb.png"))
        assert (job.status, job.record.attempts) == ("failed", 1)
        assert "9000 x 9000 are more than" in job.failed.exception

    def test_too_large_a_result_is_refused(self, run: Callable) -> None:
        job = run(ProcessImageJob, work([{"do": "resize", "width": 10_000, "height": 10_000}]))
        assert "more than" in job.failed.exception

    def test_too_large_a_file_is_refused(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process_image, "SOURCE_BYTES_MAX", 10)
        assert "larger than 10 bytes" in run(ProcessImageJob, work([SMALL])).failed.exception

    def test_a_source_that_is_not_there_fails_at_once(self, run: Callable) -> None:
        assert "there is no image" in run(ProcessImageJob, work([SMALL], source="no.png")).failed.exception

    def test_the_source_is_never_its_own_target(self, run: Callable, folder: Path) -> None:
        before = (folder / "in.png").read_bytes()
        assert run(ProcessImageJob, work([SMALL], target="out/../in.png")).status == "failed"
        assert (folder / "in.png").read_bytes() == before


class TestTheFolder:
    @pytest.mark.parametrize("path", ["../outside.png", "/tmp/outside.png", "link/outside.png"])
    def test_nothing_outside_is_read_or_written(self, run: Callable, folder: Path, path: str) -> None:
        Image.new("RGB", (9, 9)).save(folder.parent / "outside.png")
        (folder / "link").symlink_to(folder.parent)
        before = (folder.parent / "outside.png").read_bytes()
        for data in (work([SMALL], source=path), work([SMALL], target=path)):
            assert "PathRefused" in run(ProcessImageJob, data).failed.exception
        assert (folder.parent / "outside.png").read_bytes() == before

    def test_without_one_the_job_fails(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IMAGES_FOLDER")
        assert "IMAGES_FOLDER" in run(ProcessImageJob, work([SMALL])).failed.exception


class TestBadInputIsRefusedByPush:
    @pytest.mark.parametrize(
        "data",
        [
            {},
            work([]),
            work([SMALL] * 21),
            work([{"do": "explode"}]),
            work([{"do": "thumbnail", "width": 0, "height": 5}]),
            work([{"do": "thumbnail", "width": 10_001, "height": 5}]),
            work([{"do": "resize", "width": 5}]),
            work([{"do": "resize", "width": 5, "height": 5, "depth": 5}]),
            work([{"do": "watermark", "text": ""}]),
            work([{"do": "watermark", "text": "x", "opacity": 1.5}]),
            work([{"do": "convert", "format": "exe"}], target="a.exe"),
            work([AS_JPEG], target="a.png"),
            work([SMALL], target="a"),
        ],
    )
    def test_and_nothing_is_stored(self, queue: JobQueue, data: object) -> None:
        with pytest.raises(DataInvalid):
            queue.push(ProcessImageJob, data)
        assert queue.stats().total == 0

    def test_typed_data_too(self, queue: JobQueue) -> None:
        with pytest.raises(DataInvalid, match="operations"):
            queue.push(ProcessImageJob, ImageWork(source="a", target="b.png", operations=[Resize(width=-1, height=1)]))
