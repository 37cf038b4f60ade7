from django.db import connection, transaction

from protojobs import JobContext, job
from shop.models import Order


@job(name="order.send", queue="orders")
def send(number: int) -> None:
    Order.objects.filter(number=number).update(is_sent=True)
    print("sent", number, flush=True)


@job(name="order.count", queue="orders")
def count(number: int, context: JobContext) -> None:
    """Makes an order and completes itself in one transaction."""
    with transaction.atomic():
        Order.objects.create(number=number)
        context.complete_in(connection)


@job(name="order.break", queue="orders", max_retries=0)
def break_it(number: int, context: JobContext) -> None:
    """The same, but the transaction is rolled back."""
    with transaction.atomic():
        Order.objects.create(number=number)
        context.complete_in(connection)
        raise RuntimeError("after complete_in")


@job(name="order.terminate", queue="orders", max_retries=0)
def look(number: int) -> None:
    Order.objects.count()


@job(name="order.child", queue="orders", executor="process")
def in_a_child(number: int) -> None:
    Order.objects.filter(number=number).update(is_sent=True)
