"""Webhook and mail: what arrives, what is tried again, and what is never sent or shown."""

from __future__ import annotations

import logging
import re
import threading
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest

from protojobs.config import plugin_settings
from protojobs.errors import OptionInvalid
from protojobs_alerts import AlertSettings, Finding, Message, Notice, SendFailed, channels_of
from protojobs_alerts import sending as module
from protojobs_alerts.mail import Mail
from protojobs_alerts.messages import NOTICES_MAX, messages_of
from protojobs_alerts.sending import BACKLOG_MAX, Sender
from protojobs_alerts.webhook import Webhook
from protojobs_examples.mail_catcher import MailCatcher

FINDING = Finding(kind="failed", text="Job a failed.", job_name="a", error="ValueError", count=3)
MESSAGE = Message(
    id="m-1", at=datetime(2026, 11, 27, 9, tzinfo=UTC), name="shop", notices=(Notice(status="firing", finding=FINDING),)
)
ADDRESSES = {"mail_from": "jobs@example.com", "mail_to": ("ops@example.com", "dev@example.com")}


def mail_to(catcher: MailCatcher, **more: object) -> Mail:
    return Mail(AlertSettings(mail_server=f"smtp://127.0.0.1:{catcher.port}", **{**ADDRESSES, **more}))


class TestWebhook:
    def test_it_gets_json_with_a_text_for_people(self, catcher) -> None:
        Webhook(catcher.url, "s3cret").send(MESSAGE)
        (body,) = catcher.wait_for(1)
        assert body == {
            "version": 1,
            "id": "m-1",
            "at": "2026-11-27T09:00:00Z",
            "name": "shop",
            "text": "Job a failed.",
            "alerts": [
                {
                    "status": "firing",
                    "kind": "failed",
                    "queue": "",
                    "job_name": "a",
                    "error": "ValueError",
                    "count": 3,
                    "seconds": 0.0,
                    "lasts_s": 0.0,
                    "held_back": 0,
                    "text": "Job a failed.",
                }
            ],
        }
        assert catcher.headers[0]["Authorization"] == "Bearer s3cret"
        assert catcher.headers[0]["Content-Type"] == "application/json"

    @pytest.mark.parametrize(("code", "may_retry"), [(500, True), (503, True), (429, True), (400, False), (404, False)])
    def test_what_is_tried_again(self, catcher, code: int, may_retry: bool) -> None:
        catcher.answers = [code]
        with pytest.raises(SendFailed, match=str(code)) as failure:
            Webhook(catcher.url).send(MESSAGE)
        assert failure.value.may_retry is may_retry

    @pytest.mark.parametrize("code", [301, 302, 307, 308])
    def test_a_redirect_is_not_followed(self, catcher, code: int) -> None:
        catcher.answers = [code]
        with pytest.raises(SendFailed, match=str(code)):
            Webhook(catcher.url, "s3cret").send(MESSAGE)
        assert len(catcher.bodies) == 1

    def test_one_that_cannot_be_reached_is_tried_again_and_its_path_is_not_shown(self) -> None:
        webhook = Webhook("http://127.0.0.1:1/services/T0K3N")
        with pytest.raises(SendFailed) as failure:
            webhook.send(MESSAGE)
        assert failure.value.may_retry
        assert "T0K3N" not in str(failure.value) + webhook.name

    def test_a_newline_at_the_end_of_a_token_is_no_part_of_it(self, catcher) -> None:
        settings = AlertSettings(webhook=catcher.url, webhook_token="s3cret\n")
        (webhook,) = channels_of(settings)
        webhook.send(MESSAGE)
        assert catcher.headers[0]["Authorization"] == "Bearer s3cret"

    @pytest.mark.parametrize("token", ["T0K3N\nX: y", "T0K3N\u2026"])
    def test_what_no_request_can_carry_is_told_without_showing_it(self, catcher, caplog, token: str) -> None:
        sender = Sender(Webhook(catcher.url, token), (0.0,) * 4)
        sender.put(MESSAGE)
        sender.close(30)
        assert "did not take alert message m-1: it cannot be asked" in caplog.text
        assert "T0K3N" not in caplog.text


class TestMail:
    def test_it_is_one_mail_to_all_recipients(self) -> None:
        with MailCatcher() as catcher:
            mail_to(catcher).send(MESSAGE)
        (mail,) = catcher.caught
        assert mail.recipients == ["ops@example.com", "dev@example.com"]
        assert mail.message["Subject"] == "[shop] Job a failed."
        assert mail.message["Message-ID"] == "<m-1@protojobs>"
        assert mail.message["Auto-Submitted"] == "auto-generated"
        assert mail.message.get_content().startswith("Job a failed.\r\n")

    def test_a_busy_server_is_tried_again_and_one_that_refuses_for_good_is_not(self) -> None:
        answers = {one: ["451 4.3.2 busy", "550 5.1.1 secret words"] for one in ADDRESSES["mail_to"]}
        with MailCatcher(answers) as catcher:
            mail = mail_to(catcher)
            with pytest.raises(SendFailed, match="451") as busy:
                mail.send(MESSAGE)
            with pytest.raises(SendFailed, match="550") as gone:
                mail.send(MESSAGE)
        assert (busy.value.may_retry, gone.value.may_retry) == (True, False)
        assert "secret" not in str(gone.value)

    def test_a_password_never_goes_out_in_the_clear(self, monkeypatch) -> None:
        """Beyond this machine there is no login without STARTTLS."""
        monkeypatch.setattr("protojobs_alerts.mail.is_loopback", lambda _: False)
        with MailCatcher() as catcher:
            mail = mail_to(catcher, mail_user="jo", mail_password="hunter2")
            with pytest.raises(SendFailed, match="STARTTLS") as refusal:
                mail.send(MESSAGE)
        assert not refusal.value.may_retry
        assert catcher.caught == []

    def test_a_server_that_is_not_there_is_tried_again(self) -> None:
        mail = Mail(AlertSettings(mail_server="smtp://127.0.0.1:1", **ADDRESSES))
        with pytest.raises(SendFailed) as failure:
            mail.send(MESSAGE)
        assert failure.value.may_retry

    def test_names_from_the_store_cannot_add_a_header(self) -> None:
        hostile = Finding(kind="oldest", text="Queue a\r\nBcc: x@example.com is behind.", queue="a")
        message = Message(id="m", at=MESSAGE.at, name="shop", notices=(Notice(status="firing", finding=hostile),))
        with pytest.raises(
            ValueError, match="linefeed|newline"
        ):  # findings are printable; the library is the second wall
            EmailMessage()["Subject"] = message.subject
        with MailCatcher() as catcher:
            with pytest.raises(SendFailed, match=r"it cannot be sent \(ValueError\)") as refusal:
                mail_to(catcher).send(message)
        assert (refusal.value.may_retry, catcher.caught) == (False, [])


class Channel:
    name = "a channel"

    def __init__(self, *failures: SendFailed | Exception) -> None:
        self.failures = list(failures)
        self.taken: list[str] = []
        self.tries = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def send(self, message: Message) -> None:
        assert self.may_go.wait(30)
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(message.id)


def numbered(number: int) -> Message:
    return Message(id=str(number), at=MESSAGE.at, name="shop", notices=MESSAGE.notices)


class TestSender:
    def test_a_message_is_tried_again_and_the_next_ones_keep_their_order(self) -> None:
        channel = Channel(*(SendFailed("busy", may_retry=True) for _ in range(4)))
        sender = Sender(channel, (0.0,) * 4)
        for number in range(3):
            sender.put(numbered(number))
        sender.close(30)
        assert channel.taken == ["0", "1", "2"]
        assert channel.tries == 7

    @pytest.mark.parametrize(
        ("failures", "tries"),
        [
            ([SendFailed("busy", may_retry=True)] * 5, 5),
            ([SendFailed("no", may_retry=False)], 1),
            ([RuntimeError("a bug of somebody's channel")], 1),
        ],
    )
    def test_one_that_is_given_up_is_logged_and_the_next_is_sent(self, caplog, failures, tries: int) -> None:
        channel = Channel(*failures)
        sender = Sender(channel, (0.0,) * 4)
        sender.put(numbered(1))
        sender.put(numbered(2))
        sender.close(30)
        assert channel.taken == ["2"]
        assert channel.tries == tries + 1
        assert [record.levelno for record in caplog.records if record.levelno == logging.ERROR] == [logging.ERROR]

    def test_a_stuck_channel_holds_nobody_up_and_drops_beyond_its_bound(self, caplog) -> None:
        channel = Channel()
        channel.may_go.clear()
        sender = Sender(channel)
        for number in range(BACKLOG_MAX + 10):
            sender.put(numbered(number))
        assert sender.dropped in (9, 10)  # one may be in the channel's hands
        channel.may_go.set()
        sender.close(30)
        assert channel.taken[:3] == ["0", "1", "2"]

    def test_at_the_end_there_is_no_waiting_between_tries(self) -> None:
        channel = Channel(SendFailed("busy", may_retry=True))
        sender = Sender(channel, (3600.0,))
        sender.put(numbered(1))
        sender.close(30)
        assert channel.taken == ["1"]

    def test_the_pauses_add_up_to_minutes(self) -> None:
        assert 60 < sum(module.PAUSES_S) < 600


def test_many_notices_go_into_few_messages() -> None:
    notices = [Notice(status="firing", finding=FINDING)] * (NOTICES_MAX * 2 + 1)
    messages = list(messages_of(notices, name="shop", at=MESSAGE.at, ids=iter("abc")))
    assert [len(message.notices) for message in messages] == [NOTICES_MAX, NOTICES_MAX, 1]
    assert messages[0].subject == f"[shop] {NOTICES_MAX} alerts, 0 over"


class TestSettings:
    @pytest.mark.parametrize(
        "given",
        [
            {"webhook": "chat.example.com/hooks/T0K3N"},
            {"webhook": "ftp://chat.example.com/T0K3N"},
            {"webhook": "http://chat.example.com/T0K3N"},
            {"webhook": "https://jo:T0K3N@chat.example.com/"},
            {"webhook": "https://[T0K3N"},
            {"webhook": "https://chat.example.com:T0K3N/"},
            {"webhook": "https://chat.example.com/T0K3N\r\nX: y"},
            {"webhook": "https://chat.example.com/", "webhook_token": "T0K3N\nX: y"},
            {"webhook": "https://chat.example.com/", "webhook_token": "T0K3N\u2026"},
            {"mail_server": "mail.example.com", **ADDRESSES},
            {"mail_server": "smtp://jo:T0K3N@mail.example.com", **ADDRESSES},
            {"mail_server": "smtp://mail.example.com"},
            {"mail_server": "smtp://mail.example.com", **ADDRESSES, "mail_to": ("nobody",)},
            {"mail_server": "smtp://mail.example.com", **ADDRESSES, "mail_from": "a@b\r\nBcc: c@d"},
            {"mail_server": "smtp://mail.example.com", **ADDRESSES, "mail_password": "T0K3N"},
            {"oldest": ("soon",)},
            {"depth": ("-1",)},
            {"depth": ("100000",)},
            {"failed": -1},
            {"failed_window": 0.0},
            {"interval": float("nan")},
            {"look": 0.0},
            {"name": "a\nb"},
        ],
    )
    def test_a_wrong_one_is_refused_without_its_secret(self, given: dict[str, object]) -> None:
        with pytest.raises(OptionInvalid, match="PROTOJOBS_ALERTS_") as refusal:
            AlertSettings(**given)
        assert "T0K3N" not in str(refusal.value)

    def test_secrets_are_in_no_repr(self) -> None:
        settings = AlertSettings(webhook="https://chat.example.com/T0K3N", webhook_token="T0K3N")
        assert "T0K3N" not in repr(settings) + str(settings) + f"{channels_of(settings)}"
        assert [channel.name for channel in channels_of(settings)] == ["webhook to chat.example.com"]

    def test_the_page_names_every_one(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "how-to" / "alerts.md").read_text()
        rows = "".join(line for line in page.splitlines() if line.startswith("| `PROTOJOBS_ALERTS_"))
        told = {name.lower() for name in re.findall(r"`(?:PROTOJOBS_ALERTS)?_([A-Z_]+)`", rows)}
        assert told == set(AlertSettings.__struct_fields__)
        for name, default in re.findall(r"`PROTOJOBS_ALERTS_(\w+)` \| `([^`]+)` \|", page):
            assert (
                plugin_settings("alerts", AlertSettings, environ={f"PROTOJOBS_ALERTS_{name}": default})
                == AlertSettings()
            )
