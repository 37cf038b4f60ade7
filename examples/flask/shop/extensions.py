"""What the whole shop shares: the queue, the table, and a session for each request and each job."""

import click
from flask import Flask, g
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from protojobs_flask import ProtoJobs

jobs = ProtoJobs()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    is_confirmed: Mapped[bool] = mapped_column(default=False)


class Database:
    """As Flask-SQLAlchemy does it: one session for each application context."""

    def init_app(self, app: Flask) -> None:
        engine = create_engine(make_url(app.config["PROTOJOBS_URL"]).set(drivername="postgresql+psycopg"))
        self._sessions = sessionmaker(engine)
        app.teardown_appcontext(self._close)

        @app.cli.command("create-tables")
        def create_tables() -> None:
            Base.metadata.create_all(engine)
            click.echo("created")

    @property
    def session(self) -> Session:
        if "session" not in g:
            g.session = self._sessions()
        return g.session

    def _close(self, _error: BaseException | None) -> None:
        session = g.pop("session", None)
        if session is not None:
            session.close()  # what was not committed is rolled back


database = Database()
