"""A TestCase, whose transaction is rolled back, takes the jobs that were pushed in it along."""

from __future__ import annotations

from django.test import Client, TestCase

from protojobs_django import queue
from protojobs_django.testing import pushed_jobs
from shop.jobs import send


class InTestCases(TestCase):
    def test_a_first_test_pushes(self) -> None:
        self.assertEqual(Client().post("/orders/1").status_code, 201)
        self.assertEqual([(job.job_name, job.data) for job in pushed_jobs()], [("order.send", {"number": 1})])

    def test_a_second_test_sees_nothing_of_it(self) -> None:
        self.assertEqual(pushed_jobs(), [])
        queue.push(send.bind(2))
        self.assertEqual(len(pushed_jobs("orders")), 1)
        self.assertEqual(pushed_jobs("default"), [])

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        assert queue.stats().total == 0, "all was rolled back"
