"""The shop's pages and jobs: an order is stored together with the job that confirms it."""

from flask import Blueprint, abort, current_app, request
from sqlalchemy import func, select

from protojobs import Cron, JobContext, job
from shop.extensions import Order, database, jobs

pages = Blueprint("orders", __name__)


@job(name="order.confirm", queue="emails")
def confirm(order: int, ctx: JobContext) -> None:
    row = database.session.get_one(Order, order)
    # A shop would send a mail here. The job runs in an application context, as a request does.
    print(f"confirmed order {row.id} to {row.email} by {current_app.name}", flush=True)
    row.is_confirmed = True
    ctx.complete_in(database.session)  # the row and the job's end are in one transaction
    database.session.commit()


@job(name="orders.count", queue="reports", cron=Cron("* * * * *", timezone="UTC"))
def count() -> int:
    orders = database.session.scalar(select(func.count()).select_from(Order)) or 0
    print(f"{orders} orders so far", flush=True)
    return orders


@pages.post("/orders")
def order() -> tuple[dict[str, object], int]:
    row = Order(email=request.args["email"])
    database.session.add(row)
    database.session.flush()  # gives the row its id
    pushed = jobs.queue.push(confirm.bind(row.id), session=database.session)
    if "@" not in row.email:
        abort(422)  # neither the order nor its job is stored
    number = row.id
    database.session.commit()
    return {"order": number, "job": pushed}, 202


@pages.get("/orders/<int:number>")
def show(number: int) -> dict[str, object]:
    row = database.session.get(Order, number) or abort(404)
    return {"order": row.id, "email": row.email, "is_confirmed": row.is_confirmed}
