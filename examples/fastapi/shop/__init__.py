"""A small shop: FastAPI, SQLAlchemy's asyncio, PostgreSQL, and protojobs on the same database."""
