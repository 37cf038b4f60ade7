"""`django.tasks` with our backend: run on Django 6."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test import TransactionTestCase
from django.utils import timezone

from protojobs.errors import NotSupported
from protojobs_django import queue
from shop import tasks
from shop.models import Order


class TaskCases(TransactionTestCase):
    def tearDown(self) -> None:
        queue.close()
        super().tearDown()

    def test_a_task_is_worked_and_its_result_says_so(self) -> None:
        Order.objects.create(number=1)
        result = tasks.send.enqueue(1, twice=True)
        self.assertEqual(result.status, TaskResultStatus.READY)
        self.assertEqual(tasks.send.get_result(result.id), result)
        self.assertEqual(queue.get(result.id).priority, 7)
        self.assertEqual(queue.work("orders", 5).done, 1)
        result.refresh()
        self.assertEqual((result.status, result.attempts, result.args), (TaskResultStatus.SUCCESSFUL, 1, [1]))
        self.assertTrue(Order.objects.get().is_sent)
        with self.assertRaises(NotSupported):
            _ = result.return_value

    def test_an_async_task_is_worked(self) -> None:
        Order.objects.create(number=1)
        tasks.send_later.enqueue(1)
        self.assertEqual(queue.work("orders", 5).done, 1)
        self.assertTrue(Order.objects.get().is_sent)

    def test_a_task_takes_its_context(self) -> None:
        tasks.note_attempt.enqueue()
        self.assertEqual(queue.work("orders", 5).done, 1)
        self.assertEqual(Order.objects.get().number, 1)

    def test_a_failure_is_a_result_with_its_error(self) -> None:
        result = tasks.refuse.enqueue(3)
        for _ in range(4):
            queue.work("orders", 1)
        result.refresh()
        self.assertEqual((result.status, result.attempts), (TaskResultStatus.FAILED, 4))
        self.assertIs(result.errors[0].exception_class, ValueError)
        self.assertIn("not 3", result.errors[0].traceback)
        with self.assertRaises(ValueError):
            _ = result.return_value

    def test_run_after_puts_it_off(self) -> None:
        after = timezone.now() + timedelta(hours=1)
        result = tasks.send.using(run_after=after).enqueue(1)
        self.assertEqual(queue.work("orders", 5).runs, 0)
        self.assertEqual(tasks.send.get_result(result.id).task.run_after, after)

    def test_a_rollback_takes_the_task_along(self) -> None:
        with self.assertRaises(RuntimeError), transaction.atomic():
            result = tasks.send.enqueue(1)
            raise RuntimeError
        with self.assertRaises(TaskResultDoesNotExist):
            tasks.send.get_result(result.id)

    def test_arguments_that_are_no_json_are_refused(self) -> None:
        with self.assertRaises(TypeError):
            tasks.send.enqueue(object())

    def test_djangos_signals_are_sent(self) -> None:
        heard: list[tuple[str, str]] = []
        listeners = []
        for name, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):
            listeners.append(lambda task_result, name=name, **_: heard.append((name, str(task_result.status))))
            signal.connect(listeners[-1], weak=False)
        Order.objects.create(number=1)
        tasks.send.enqueue(1)
        queue.work("orders", 5)
        self.assertEqual(heard, [("enqueued", "READY"), ("started", "RUNNING"), ("finished", "SUCCESSFUL")])
