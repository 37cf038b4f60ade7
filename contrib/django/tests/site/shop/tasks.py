"""Tasks of Django 6."""

from asgiref.sync import sync_to_async
from django.db import connections
from django.tasks import TaskContext, task

from shop.models import Order


@task(queue_name="orders", priority=7)
def send(number: int, *, twice: bool = False) -> int:
    return Order.objects.filter(number=number).update(is_sent=True) * (1 + twice)


@task(queue_name="orders")
async def send_later(number: int) -> None:
    await Order.objects.filter(number=number).aupdate(is_sent=True)
    await sync_to_async(connections.close_all)()  # in the thread of the ORM, where nobody else does


@task(queue_name="orders", takes_context=True)
def note_attempt(context: TaskContext) -> None:
    Order.objects.create(number=context.attempt)


@task(queue_name="orders")
def refuse(number: int) -> None:
    raise ValueError(f"not {number}")
