"""How do I store a job together with my own rows, or not at all?"""

import tempfile
from pathlib import Path

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from protojobs import Job, JobQueue
from protojobs_sqlalchemy import SQLAlchemyDriver


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


class ConfirmOrder(Job):
    queue = "emails"

    def handle(self, data):
        print(f"  confirmed order {data['order']}")


def place_order(session: Session, queue: JobQueue, customer: str) -> None:
    """The row and the job are in one transaction: no order without its mail, no mail without its order."""
    order = Order(customer=customer)
    session.add(order)
    session.flush()
    queue.push(ConfirmOrder, {"order": order.id}, session=session)
    if customer == "Mallory":
        raise PermissionError("Mallory may not order")


def main() -> None:
    folder = tempfile.TemporaryDirectory()
    engine = create_engine(f"sqlite:///{Path(folder.name) / 'shop.db'}")
    Base.metadata.create_all(engine)
    queue = JobQueue(SQLAlchemyDriver(engine))  # the application's own database
    queue.driver.setup()

    for customer in ("Jo", "Mallory", "Al"):
        try:
            with Session(engine) as session, session.begin():
                place_order(session, queue, customer)
            print(f"{customer}: committed, the order and its job")
        except PermissionError:
            print(f"{customer}: rolled back, the order and its job")

    with Session(engine) as session:
        orders = session.scalar(select(func.count()).select_from(Order))
    print(f"{orders} orders, {queue.stats('emails').pending} jobs:")
    queue.work("emails", 10)
    queue.driver.close()
    engine.dispose()
    folder.cleanup()


if __name__ == "__main__":
    main()
