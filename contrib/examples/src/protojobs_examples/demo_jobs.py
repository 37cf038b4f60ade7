"""The jobs of the demo's shop; `--app protojobs_examples.demo_jobs` registers them, and the example jobs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec

from protojobs import Job, JobContext, job
from protojobs_examples.data_cleanup import DataCleanupJob
from protojobs_examples.process_image import ProcessImageJob
from protojobs_examples.send_email import SendEmailJob

__all__ = [
    "DataCleanupJob",
    "ProcessImageJob",
    "SendEmailJob",
    "WriteInvoiceJob",
    "add_up_order",
    "count_stock",
    "deliver",
]


@job(name="shop.add_up_order", queue="orders", max_retries=3)
def add_up_order(order: int, prices: list[float]) -> dict[str, object]:
    """A small job: a function, with arguments that are checked when it is pushed."""
    return {"order": order, "total": round(sum(prices), 2)}


@job(name="shop.deliver", queue="deliveries", timeout=60)
def deliver(parcel: int) -> None:
    """Write down who delivers which parcel. In a worker that has SHOP_SLOW in its environment it takes for ever."""
    with (Path(os.environ.get("SHOP_FOLDER", ".")) / "deliveries.txt").open("a", encoding="utf-8") as notes:
        notes.write(f"parcel {parcel}: on its way with process {os.getpid()}\n")
    if os.environ.get("SHOP_SLOW"):
        time.sleep(60)


@job(name="shop.count_stock", queue="stock")
def count_stock(context: JobContext) -> None:
    """Write down for which time of its schedule it was run."""
    with (Path(os.environ.get("SHOP_FOLDER", ".")) / "stock.txt").open("a", encoding="utf-8") as notes:
        notes.write(f"{context.meta.get('due_at', 'by hand')}\n")


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to write an invoice to, and over what."""

    customer: int
    total: float


class WriteInvoiceJob(Job[Invoice]):
    """Write an invoice to a customer whose address is on file, in the folder SHOP_FOLDER."""

    name = "shop.write_invoice"
    queue = "invoices"
    max_retries = 1
    retry_delay = 0.5

    def handle(self, data: Invoice) -> str:
        """Write it, whole: a second run writes the same text over it."""
        shop = Path(os.environ.get("SHOP_FOLDER", "."))
        on_file = shop / "customers" / f"{data.customer}.json"
        if not on_file.exists():
            problem = f"customer {data.customer} has no address: customers/{on_file.name} is missing"
            raise LookupError(problem)
        address = json.loads(on_file.read_text(encoding="utf-8"))
        invoice = shop / "invoices" / f"{data.customer}.txt"
        invoice.parent.mkdir(exist_ok=True)
        part = invoice.with_suffix(".part")
        part.write_text(f"To {address['name']}: please pay {data.total:.2f}.\n", encoding="utf-8")
        part.replace(invoice)
        return invoice.name
