"""The jobs of the shop. protojobs_django imports this module when Django starts."""

from django.db import connection, transaction

from protojobs import Cron, JobContext, job
from shop.models import Order


@job(name="order.confirm", queue="emails")
def confirm(order: int, ctx: JobContext) -> None:
    with transaction.atomic():
        row = Order.objects.get(pk=order)
        # A shop would send a mail here.
        print(f"confirmed order {row.pk} to {row.email}", flush=True)
        row.is_confirmed = True
        row.save()
        ctx.complete_in(connection)  # the row and the job's end are in one transaction


@job(name="orders.count", queue="reports", cron=Cron("* * * * *", timezone="UTC"))
def count() -> int:
    orders = Order.objects.count()
    print(f"{orders} orders so far", flush=True)
    return orders
