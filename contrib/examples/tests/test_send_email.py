"""SendEmailJob against a real SMTP server on this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from protojobs import JobQueue
from protojobs.errors import DataInvalid
from protojobs_examples.mail_catcher import MailCatcher
from protojobs_examples.send_email import Email, SendEmailJob, SmtpSettings, message_id, parse_address

HELLO = {"to": "jo@example.com", "subject": "Hello", "body": "Hello Jo!\n"}


@pytest.fixture(autouse=True)
def mail_leaves_to_the_catcher(catcher: MailCatcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "attachments").mkdir()
    monkeypatch.setenv("MAIL_HOST", catcher.host)
    monkeypatch.setenv("MAIL_PORT", str(catcher.port))
    monkeypatch.setenv("MAIL_FROM", "The Shop <shop@example.com>")
    monkeypatch.setenv("MAIL_ATTACHMENTS", str(tmp_path / "attachments"))


class TestSending:
    def test_the_mail_arrives_as_it_was_pushed(self, run: Callable, catcher: MailCatcher) -> None:
        assert run(SendEmailJob, HELLO).status == "completed"
        [mail] = catcher.caught
        assert (mail.sender, mail.recipients) == ("shop@example.com", ["jo@example.com"])
        assert mail.message["Subject"] == "Hello"
        assert mail.message["From"] == "The Shop <shop@example.com>"
        assert mail.message.get_content().rstrip() == "Hello Jo!"

    def test_the_data_may_be_typed(self, run: Callable, catcher: MailCatcher) -> None:
        run(SendEmailJob, Email(to=["jo@example.com"], subject="typed", body="x"))
        assert catcher.caught[0].message["Subject"] == "typed"

    def test_html_comes_beside_the_plain_text(self, run: Callable, catcher: MailCatcher) -> None:
        run(SendEmailJob, {**HELLO, "html": "<p>Hello <b>Jo</b></p>"})
        parts = [part.get_content_type() for part in catcher.caught[0].message.walk()]
        assert parts == ["multipart/alternative", "text/plain", "text/html"]

    def test_every_recipient_is_in_the_envelope_and_a_blind_one_in_no_header(
        self, run: Callable, catcher: MailCatcher
    ) -> None:
        run(SendEmailJob, {**HELLO, "to": ["a@example.com", "b@example.com"], "cc": ["c@x.org"], "bcc": ["d@x.org"]})
        [mail] = catcher.caught
        assert mail.recipients == ["a@example.com", "b@example.com", "c@x.org", "d@x.org"]
        assert "d@x.org" not in mail.message.as_string()

    def test_subject_and_names_beyond_ascii_arrive(self, run: Callable, catcher: MailCatcher) -> None:
        run(SendEmailJob, {"to": "Zoë Müller <zoe@example.com>", "subject": "Grüße ✓", "body": "Schön\n"})
        message = catcher.caught[0].message
        assert message["Subject"] == "Grüße ✓"
        assert message["To"].addresses[0].display_name == "Zoë Müller"
        assert message.get_content().rstrip() == "Schön"

    def test_an_address_beyond_ascii_is_sent_by_smtputf8(self, run: Callable, catcher: MailCatcher) -> None:
        assert run(SendEmailJob, {**HELLO, "to": "zoë@example.com"}).status == "completed"
        assert catcher.caught[0].recipients == ["zoë@example.com"]

    def test_lines_that_begin_with_a_dot_survive(self, run: Callable, catcher: MailCatcher) -> None:
        run(SendEmailJob, {**HELLO, "body": "one\n.\n..two\n"})
        assert catcher.caught[0].message.get_content().replace("\r\n", "\n") == "one\n.\n..two\n"

    def test_its_message_id_is_the_jobs(self, run: Callable, catcher: MailCatcher) -> None:
        job = run(SendEmailJob, HELLO)
        assert catcher.caught[0].message["Message-ID"] == f"<job.{job.record.id}@example.com>"
        assert job.result["message_id"] == f"<job.{job.record.id}@example.com>"

    def test_a_job_id_of_ones_own_making_cannot_break_the_header(self) -> None:
        assert message_id("x>\r\nBcc: all@example.com", "example.com").count("\n") == 0
        assert message_id("a", "example.com") != message_id("b", "example.com")


class TestAttachments:
    def test_they_are_read_from_the_workers_folder(self, run: Callable, catcher: MailCatcher, tmp_path: Path) -> None:
        (tmp_path / "attachments" / "bill.pdf").write_bytes(b"%PDF-1.4")
        assert run(SendEmailJob, {**HELLO, "attachments": ["bill.pdf"]}).status == "completed"
        [attached] = catcher.caught[0].message.iter_attachments()
        assert (attached.get_filename(), attached.get_content_type()) == ("bill.pdf", "application/pdf")
        assert attached.get_content() == b"%PDF-1.4"

    @pytest.mark.parametrize("path", ["../secret.txt", "link.txt", "{tmp}/secret.txt", "nul\x00.txt"])
    def test_and_from_nowhere_else(self, run: Callable, catcher: MailCatcher, tmp_path: Path, path: str) -> None:
        (tmp_path / "secret.txt").write_text("secret")
        (tmp_path / "attachments" / "link.txt").symlink_to(tmp_path / "secret.txt")
        job = run(SendEmailJob, {**HELLO, "attachments": [path.replace("{tmp}", str(tmp_path))]})
        assert (job.status, job.record.attempts, catcher.caught) == ("failed", 1, [])
        assert "PathRefused" in job.failed.exception

    def test_without_a_folder_they_are_refused(
        self, run: Callable, catcher: MailCatcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MAIL_ATTACHMENTS")
        assert "MAIL_ATTACHMENTS" in run(SendEmailJob, {**HELLO, "attachments": ["a.txt"]}).failed.exception

    def test_too_large_ones_are_refused(
        self, run: Callable, catcher: MailCatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("protojobs_examples.send_email.ATTACHMENT_BYTES_MAX", 10)
        for name in ("a", "b"):
            (tmp_path / "attachments" / name).write_bytes(b"123456")
        assert "larger than 10 bytes" in run(SendEmailJob, {**HELLO, "attachments": ["a", "b"]}).failed.exception
        assert catcher.caught == []


class TestWhenTheServerDoesNotTakeIt:
    def test_a_busy_server_is_tried_again(self, run: Callable, queue: JobQueue, catcher: MailCatcher) -> None:
        job = run(SendEmailJob().retry_after(0), {**HELLO, "to": "busy@example.com"})
        assert (job.status, job.record.attempts) == ("completed", 2)
        assert len(catcher.caught) == 1

    def test_a_mailbox_that_does_not_exist_fails_at_once(self, run: Callable, catcher: MailCatcher) -> None:
        job = run(SendEmailJob().retry_after(0), {**HELLO, "to": "gone@example.com"})
        assert (job.status, job.record.attempts) == ("failed", 1)
        assert "gone@example.com: 550 5.1.1 no such mailbox" in job.failed.exception

    def test_nobody_gets_it_twice_because_of_somebody_else(self, run: Callable, catcher: MailCatcher) -> None:
        run(SendEmailJob().retry_after(0), {**HELLO, "to": ["jo@example.com", "busy@example.com"]})
        assert [mail.recipients for mail in catcher.caught] == [["jo@example.com", "busy@example.com"]]

    def test_a_server_that_is_away_is_tried_again_until_the_attempts_end(
        self, run: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as bound:  # bound and not listening: connections are refused
            bound.bind(("127.0.0.1", 0))
            monkeypatch.setenv("MAIL_PORT", str(bound.getsockname()[1]))
            job = run(SendEmailJob().retry_after(0).retries(2), HELLO)
        assert (job.status, job.record.attempts) == ("failed", 3)
        assert "MailServerBusy: ConnectionRefusedError" in job.failed.exception

    def test_a_server_that_says_nothing_is_not_waited_for_without_end(
        self, run: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(
                SendEmailJob,
                "smtp",
                SmtpSettings(host="127.0.0.1", port=silent.getsockname()[1], sender="a@b.c", timeout_s=0.2),
            )
            failed = run(SendEmailJob().retries(0), HELLO).failed
        assert "MailServerBusy" in failed.exception and "timed out" in failed.exception

    def test_a_server_without_encryption_never_sees_the_mail_where_it_is_asked_for(
        self, run: Callable, catcher: MailCatcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MAIL_SECURITY", "starttls")
        job = run(SendEmailJob, HELLO)
        assert (job.status, job.record.attempts, catcher.caught) == ("failed", 1, [])
        assert "STARTTLS" in job.failed.exception


class TestBadInputIsRefusedByPush:
    @pytest.mark.parametrize(
        "data",
        [
            {},
            {**HELLO, "to": []},
            {**HELLO, "to": ""},
            {**HELLO, "to": "nobody"},
            {**HELLO, "to": "jo@example.com, al@example.com"},
            {**HELLO, "to": "jo@example.com\nBcc: all@example.com"},
            {**HELLO, "to": "jo@example.com\r\nDATA"},
            {**HELLO, "to": "Jo\nX-Evil: 1 <jo@example.com>"},
            {**HELLO, "to": "jo smith@example.com"},
            {**HELLO, "cc": ["@example.com"]},
            {**HELLO, "reply_to": "x\r\ny@example.com"},
            {**HELLO, "subject": "Hi\nBcc: all@example.com"},
            {**HELLO, "subject": "x" * 501},
            {**HELLO, "to": ["a@example.com"] * 101},
            {**HELLO, "attachments": ["a"] * 21},
            {**HELLO, "body": 7},
            {**HELLO, "password": "secret"},
        ],
        ids=lambda data: repr(data)[-50:],
    )
    def test_and_nothing_is_stored(self, queue: JobQueue, data: object) -> None:
        with pytest.raises(DataInvalid):
            queue.push(SendEmailJob, data)
        assert queue.stats().total == 0

    @pytest.mark.parametrize("text", ["jo@example.com", "<jo@example.com>", "Jo <jo@example.com>", '"D., J" <a@b.c>'])
    def test_what_is_an_address_passes(self, text: str) -> None:
        assert "@" in parse_address(text).addr_spec


class TestSettings:
    def test_the_password_is_in_no_representation(self) -> None:
        settings = SmtpSettings(user="me", password="hush")
        assert "hush" not in f"{settings} {settings!r} {[settings]}"

    def test_a_password_does_not_travel_unencrypted(self) -> None:
        with pytest.raises(ValueError, match="unencrypted"):
            SmtpSettings(host="mail.example.com", security="none", user="me", password="hush")

    def test_another_machine_is_spoken_to_by_starttls(self) -> None:
        settings = SmtpSettings.from_environment({"MAIL_HOST": "mail.example.com"})
        assert (settings.security, settings.port) == ("starttls", 587)

    def test_this_machine_in_the_clear(self) -> None:
        assert SmtpSettings.from_environment({}).security == "none"

    def test_a_port_that_is_no_number_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="port"):
            SmtpSettings.from_environment({"MAIL_PORT": "smtp"})
