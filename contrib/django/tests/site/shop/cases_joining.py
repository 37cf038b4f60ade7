"""A push is part of Django's transaction: run by `manage.py test`, on each database."""

from __future__ import annotations

from datetime import timedelta
from unittest import mock

from django.conf import settings
from django.db import connection, connections, transaction
from django.test import Client, TransactionTestCase
from django.utils import timezone

from protojobs import events
from protojobs.errors import OptionInvalid, ProtojobsError
from protojobs_django import queue
from shop.jobs import break_it, count, send
from shop.models import Order


def pending() -> int:
    return queue.stats("orders").pending


class JoiningCases(TransactionTestCase):
    def test_it_is_the_test_database_that_holds_the_jobs(self) -> None:
        name = str(connection.settings_dict["NAME"])
        self.assertRegex(name, "test_|memorydb")
        self.assertIn(name.partition("?")[0].rpartition(":")[2], repr(queue.driver))

    def test_a_push_is_stored_by_the_commit_and_not_before(self) -> None:
        with transaction.atomic():
            Order.objects.create(number=1)
            job_id = queue.push(send.bind(1))
            if connection.vendor != "sqlite":  # where readers wait for the writer of a database in memory
                self.assertIsNone(queue.get(job_id))
        self.assertEqual(queue.get(job_id).status.value, "pending")

    def test_a_rollback_takes_the_job_along(self) -> None:
        with self.assertRaises(RuntimeError), transaction.atomic():
            Order.objects.create(number=1)
            queue.push(send.bind(1))
            raise RuntimeError
        self.assertEqual((Order.objects.count(), pending()), (0, 0))

    def test_a_savepoint_takes_only_its_own_jobs_along(self) -> None:
        with transaction.atomic():
            queue.push(send.bind(1))
            with self.assertRaises(RuntimeError), transaction.atomic():
                queue.push(send.bind(2))
                raise RuntimeError
            queue.push(send.bind(3))
        self.assertEqual(pending(), 2)

    def test_many_jobs_and_jobs_for_later_join_too(self) -> None:
        with transaction.atomic():
            queue.push_many([send.bind(number) for number in range(1500)])
            queue.later(3600, send.bind(1))
            transaction.set_rollback(True)
        self.assertEqual(pending(), 0)
        with transaction.atomic():
            queue.push_many([send.bind(number) for number in range(1500)])
        self.assertEqual(pending(), 1500)

    def test_the_same_id_is_stored_once(self) -> None:
        job_id = queue.push(send.bind(1))
        with transaction.atomic():
            Order.objects.create(number=1)
            queue.push(send.bind(1), id=job_id)
        self.assertEqual((Order.objects.count(), pending()), (1, 1))

    def test_the_connection_may_be_named(self) -> None:
        with self.assertRaises(RuntimeError), transaction.atomic():
            queue.push(send.bind(1), session=connection)
            raise RuntimeError
        self.assertEqual(pending(), 0)
        queue.push(send.bind(1), session=connection)
        self.assertEqual(pending(), 1, "without a transaction it is stored at once")

    def test_the_connection_of_another_database_is_refused(self) -> None:
        with connections["other"].cursor(), self.assertRaisesRegex(OptionInvalid, "the jobs are elsewhere"):
            with transaction.atomic(using="other"):
                queue.push(send.bind(1), session=connections["other"])

    databases = {"default", "other"}

    def test_a_request_with_atomic_requests_is_all_or_nothing(self) -> None:
        with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
            client = Client(raise_request_exception=False)
            self.assertEqual(client.post("/orders/1?fail=1").status_code, 500)
            self.assertEqual((Order.objects.count(), pending()), (0, 0))
            self.assertEqual(client.post("/orders/1").status_code, 201)
            self.assertEqual((Order.objects.count(), pending()), (1, 1))

    def test_a_push_that_fails_gives_up_the_transaction(self) -> None:
        """Even if the error is caught: the rest must not be stored without the job."""
        with transaction.atomic():
            Order.objects.create(number=1)
            with connection.cursor() as cursor:
                cursor.execute("select 1")
            with (
                mock.patch("protojobs_sqlalchemy.sessions.joining.insert_absent", side_effect=_broken),
                self.assertRaises(ProtojobsError),
            ):
                queue.push(send.bind(1))
        self.assertEqual((Order.objects.count(), pending()), (0, 0))

    def test_queued_is_told_after_the_commit(self) -> None:
        heard: list[str] = []
        listener = events.on("job.queued", lambda event: heard.append(event.job_id))
        try:
            with transaction.atomic():
                job_id = queue.push(send.bind(1))
                self.assertEqual(heard, [])
            self.assertEqual(heard, [job_id])
            with self.assertRaises(RuntimeError), transaction.atomic():
                queue.push(send.bind(1))
                raise RuntimeError
            self.assertEqual(heard, [job_id])
        finally:
            events.off("job.queued", listener)

    def test_it_is_due_now_whatever_the_zone_of_the_site(self) -> None:
        with transaction.atomic():
            job_id = queue.push(send.bind(1))
        due = queue.get(job_id).available_at
        self.assertLess(abs(due - queue.driver.now()), timedelta(seconds=20))

    def test_djangos_connection_is_left_as_it_was(self) -> None:
        moment = timezone.now().replace(microsecond=0)
        Order.objects.create(number=17, ordered_at=moment)
        with transaction.atomic():
            queue.push(send.bind(1))
            found = Order.objects.get(number__regex="^1.$")
            self.assertEqual(found.ordered_at, moment)
            self.assertEqual(found.ordered_at.tzinfo is not None, settings.USE_TZ)
        self.assertTrue(connection.get_autocommit())

    def test_coroutines_join_by_the_connection(self) -> None:
        from asgiref.sync import async_to_sync

        with self.assertRaises(RuntimeError), transaction.atomic():
            async_to_sync(queue.apush)(send.bind(1), session=connection)
            raise RuntimeError
        self.assertEqual(pending(), 0)


def _broken(*_arguments: object) -> None:
    from protojobs.errors import StoreUnavailable

    raise StoreUnavailable("away")


class WorkingCases(TransactionTestCase):
    def test_a_job_works_on_the_sites_rows(self) -> None:
        Order.objects.create(number=1)
        queue.push(send.bind(1))
        self.assertEqual(queue.work("orders", 5).done, 1)
        self.assertTrue(Order.objects.get().is_sent)

    def test_complete_in_completes_with_the_rows(self) -> None:
        job_id = queue.push(count.bind(7))
        self.assertEqual(queue.work("orders", 5).done, 1)
        self.assertEqual((Order.objects.count(), queue.get(job_id).status.value), (1, "completed"))

    def test_complete_in_is_rolled_back_with_the_rows(self) -> None:
        job_id = queue.push(break_it.bind(7))
        self.assertEqual(queue.work("orders", 5).failed, 1)
        self.assertEqual((Order.objects.count(), queue.get(job_id).status.value), (0, "failed"))

    def tearDown(self) -> None:
        queue.close()
        super().tearDown()
