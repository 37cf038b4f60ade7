from urllib.parse import urlencode

from django.contrib.auth.models import Permission, User
from django.test import Client, TestCase, TransactionTestCase

from protojobs_django import queue
from protojobs_django.testing import pushed_jobs
from shop.models import Order

FORM = "application/x-www-form-urlencoded"


class Ordering(TestCase):
    def test_an_order_is_stored_with_its_job(self) -> None:
        answer = self.client.post("/orders?email=jo@example.com")
        self.assertEqual(answer.status_code, 202)
        self.assertEqual([job.data for job in pushed_jobs("emails")], [{"order": answer.json()["order"]}])

    def test_an_order_that_is_refused_leaves_no_job(self) -> None:
        self.assertEqual(self.client.post("/orders?email=nobody").status_code, 422)
        self.assertEqual((Order.objects.count(), pushed_jobs("emails")), (0, []))


class Confirming(TransactionTestCase):
    def test_an_order_is_confirmed_by_a_worker(self) -> None:
        number = self.client.post("/orders?email=jo@example.com").json()["order"]
        self.assertEqual(queue.work("emails", 10).done, 1)
        self.assertTrue(self.client.get(f"/orders/{number}").json()["is_confirmed"])


class Dashboard(TransactionTestCase):
    """Its statements run on connections of its own, so the users must be committed."""

    def sign_in(self, *rights: str, is_staff: bool = True) -> Client:
        user = User.objects.create_user("ann", is_staff=is_staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=rights))
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        return client

    def pause(self, client: Client, **headers: str) -> int:
        form = urlencode({"queue": "emails", "back": "/"})
        return client.generic("POST", "/admin/jobs/queues/pause", form, content_type=FORM, headers=headers).status_code

    def test_whoever_is_no_staff_is_sent_to_the_login(self) -> None:
        login = "/admin/login/?next=/admin/jobs/"
        self.assertRedirects(self.client.get("/admin/jobs/"), login)
        customer = self.sign_in("see_jobs", "operate_jobs", is_staff=False)
        self.assertRedirects(customer.get("/admin/jobs/"), login)
        self.assertEqual(self.pause(customer, sec_fetch_site="same-origin"), 302)
        self.assertFalse(any(info.is_paused for info in queue.queues()))

    def test_staff_without_the_right_is_refused_and_has_no_link(self) -> None:
        client = self.sign_in()
        self.assertEqual(client.get("/admin/jobs/").status_code, 401)
        self.assertNotContains(client.get("/admin/"), "Background jobs")

    def test_who_may_see_jobs_has_a_link_and_may_not_act(self) -> None:
        client = self.sign_in("see_jobs")
        self.assertContains(client.get("/admin/"), '<a href="/admin/jobs/">Background jobs</a>', html=True)
        self.assertEqual(client.get("/admin/jobs/").status_code, 200)
        self.assertEqual(self.pause(client, sec_fetch_site="same-origin"), 403)

    def test_what_somebody_does_is_in_the_audit_log_under_their_name(self) -> None:
        client = self.sign_in("see_jobs", "operate_jobs")
        self.assertEqual(self.pause(client, sec_fetch_site="cross-site"), 403)
        self.assertEqual(self.pause(client, sec_fetch_site="same-origin"), 303)
        self.assertEqual([info.name for info in queue.queues() if info.is_paused], ["emails"])
        (noted,) = client.get("/admin/jobs/api/v1/audit").json()["actions"]
        self.assertEqual((noted["actor"], noted["action"], noted["target"]), ("ann", "pause", "emails"))
        queue.resume("emails")

    def tearDown(self) -> None:
        queue.close()
        super().tearDown()
