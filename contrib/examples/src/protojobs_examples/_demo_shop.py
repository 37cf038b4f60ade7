"""The shop of the demo: a folder with images, old files and a database; the jobs that it pushes, and their results."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from PIL import Image, ImageDraw, ImageOps

from protojobs import JobQueue, Scheduler
from protojobs_examples.demo_jobs import (
    DataCleanupJob,
    ProcessImageJob,
    SendEmailJob,
    WriteInvoiceJob,
    add_up_order,
    count_stock,
    deliver,
)
from protojobs_examples.mail_catcher import MailCatcher

__all__ = ["BUSY", "MISSING_CUSTOMER", "QUEUES", "Promise", "Shop"]

QUEUES = {  # in the order in which the worker serves them -> what each is for
    "emails": "SendEmailJob",
    "images": "ProcessImageJob",
    "invoices": "WriteInvoiceJob",
    "maintenance": "DataCleanupJob",
    "orders": "add_up_order",
    "deliveries": "deliver",
    "stock": "count_stock",
}
EMAILS, IMAGES, ORDERS, OLD_FILES, OLD_ROWS = 20, 6, 200, 12, 500
TIMES = 3  # of the schedule: one, two and three seconds after it was stored
MISSING_CUSTOMER = 41
BUSY = "customer7@example.com"  # the mail server is busy twice before it takes a mail for this one
_BUSY_ANSWER = "451 4.3.2 busy, please try again later"
_DAY_S = 86_400

Promise = tuple[str, bool]


class Shop:
    """One folder, and what belongs to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mail = MailCatcher({BUSY: [_BUSY_ANSWER] * 2})
        self._database = f"sqlite:///{folder / 'shop.db'}"

    @contextmanager
    def open(self) -> Generator[None]:
        """The shop with its mail server running, and a worker's environment that knows where everything is."""
        self._paint()
        self._let_dust_gather()
        with self.mail, _environment(self._settings()):
            yield

    def push_all(self, queue: JobQueue) -> Mapping[str, int]:
        """Push everything, and say how many jobs went to each queue."""
        for number in range(1, EMAILS + 1):
            mail = {
                "to": f"customer{number}@example.com",
                "subject": f"Your order {number}",
                "body": f"Thank you for order {number}.\n",
            }
            queue.push(SendEmailJob().retry_after(1), mail)
        for number in range(1, IMAGES + 1):
            queue.push(
                ProcessImageJob,
                {
                    "source": f"painted/{number}.png",
                    "target": f"web/{number}.jpg",
                    "operations": [
                        {"do": "thumbnail", "width": 640, "height": 640},
                        {"do": "watermark", "text": "protojobs"},
                        {"do": "convert", "format": "jpeg"},
                    ],
                },
            )
        queue.push(WriteInvoiceJob, {"customer": MISSING_CUSTOMER, "total": 99.5})
        queue.push(
            DataCleanupJob,
            {
                "what": [
                    {"clean": "files", "folder": str(self.folder / "cache"), "pattern": "*.tmp", "older_than_days": 7},
                    {"clean": "rows", "table": "visits", "column": "seen_at", "older_than_days": 90},
                ]
            },
        )
        # Many at once: push_many sends them in chunks, each all or nothing, instead of one by one.
        queue.push_many(add_up_order.bind(number, [1.5, number * 0.25]) for number in range(ORDERS))
        queue.push(deliver.bind(1))
        return {"emails": EMAILS, "images": IMAGES, "invoices": 1, "maintenance": 1, "orders": ORDERS, "deliveries": 1}

    def schedule(self, queue: JobQueue) -> Mapping[str, int]:
        """Store the schedule, and say how many jobs it will make."""
        now = queue.driver.now()
        first, last = (now + timedelta(seconds=seconds) for seconds in (1, TIMES))
        Scheduler(queue).every(count_stock, 1, id="count-stock", misfire="all", start=first, end=last)
        return {"stock": TIMES}

    def promises(self) -> list[Promise]:
        """What should be true of the world outside the job store after all is done, and whether it is."""
        ids = {mail.message["Message-ID"] for mail in self.mail.caught}
        images = list((self.folder / "web").glob("*.jpg"))
        dusty = list((self.folder / "cache").glob("*.tmp"))
        stock = self.folder / "stock.txt"
        counted = stock.read_text(encoding="utf-8").splitlines() if stock.exists() else []
        return [
            (f"{len(self.mail.caught)} e-mails arrived, each once", len(ids) == len(self.mail.caught) == EMAILS),
            (f"{len(images)} images are in {self.folder / 'web'}", len(images) == IMAGES),
            (
                f"{OLD_FILES} old files and {OLD_ROWS} old rows are gone, the new ones are not",
                [path.name for path in dusty] == ["new.tmp"] and self._visits() == 1,
            ),
            (
                f"{len(counted)} times of the schedule came, and each had one job",
                len(set(counted)) == len(counted) == TIMES,
            ),
        ]

    def _settings(self) -> dict[str, str]:
        return {
            "SHOP_FOLDER": str(self.folder),
            "MAIL_HOST": self.mail.host,
            "MAIL_PORT": str(self.mail.port),
            "MAIL_FROM": "The Shop <shop@example.com>",
            "IMAGES_FOLDER": str(self.folder),
            "CLEANUP_FOLDERS": str(self.folder / "cache"),
            "CLEANUP_DATABASE_URL": self._database,
            "CLEANUP_COLUMNS": "visits.seen_at",
        }

    def _paint(self) -> None:
        (self.folder / "painted").mkdir()
        for number in range(1, IMAGES + 1):
            image = ImageOps.fit(Image.merge("RGB", [Image.radial_gradient("L")] * 3), (1600, 1200))
            draw = ImageDraw.Draw(image)
            for ring in range(12):
                edge = 40 + ring * 45
                draw.ellipse((edge, edge, 1600 - edge, 1200 - edge), outline=(20 * ring, 40 * number, 120), width=9)
            image.save(self.folder / "painted" / f"{number}.png", compress_level=1)

    def _let_dust_gather(self) -> None:
        (self.folder / "customers").mkdir()
        (self.folder / "cache").mkdir()
        long_ago = time.time() - 30 * _DAY_S
        for number in range(OLD_FILES):
            old = self.folder / "cache" / f"{number}.tmp"
            old.write_bytes(b"dust")
            os.utime(old, (long_ago, long_ago))
        (self.folder / "cache" / "new.tmp").write_bytes(b"in use")
        visits = sa.Table(
            "visits", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("seen_at", sa.DateTime)
        )
        now = datetime.now(UTC).replace(tzinfo=None)
        engine = sa.create_engine(self._database, poolclass=sa.NullPool)
        with engine.begin() as connection:
            visits.create(connection)
            ages = [timedelta(days=100)] * OLD_ROWS + [timedelta(0)]
            connection.execute(sa.insert(visits), [{"seen_at": now - age} for age in ages])

    def _visits(self) -> int:
        engine = sa.create_engine(self._database, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT count(*) FROM visits")) or 0


@contextmanager
def _environment(settings: Mapping[str, str]) -> Generator[None]:
    """The variables set, and nothing else of the mail server's: a demo must never find somebody's real one."""
    touched = [*settings, "MAIL_USER", "MAIL_PASSWORD", "MAIL_SECURITY", "MAIL_ATTACHMENTS", "SHOP_SLOW"]
    before = {name: os.environ.pop(name) for name in touched if name in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in touched:
            os.environ.pop(name, None)
        os.environ.update(before)
