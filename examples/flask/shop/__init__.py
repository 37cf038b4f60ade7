"""A small shop: Flask, SQLAlchemy, PostgreSQL, and protojobs on the same database."""

import os

from flask import Flask

from protojobs_dashboard import BasicAuth, Dashboard, mount_flask
from shop.extensions import database, jobs
from shop.orders import pages


def create_app() -> Flask:
    app = Flask("shop")
    app.config["PROTOJOBS_URL"] = os.environ["PROTOJOBS_URL"]  # the shop's own database
    app.config["PROTOJOBS_PUSH_TIMEOUT"] = 2
    jobs.init_app(app)
    database.init_app(app)
    app.register_blueprint(pages)
    password = os.environ.get("SHOP_OPS_PASSWORD")
    if password:
        with app.app_context():
            queue = jobs.queue
        mount_flask(app, "/ops/jobs", Dashboard(queue, auth=BasicAuth({"ops": password}, operators={"ops"})))
    return app
