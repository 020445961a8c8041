import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_daemon import PATIENCE_SECONDS, SECRET, Daemon

from dagwright_airflow import events, feedback, spool
from dagwright_airflow.feedback import Sender
from dagwright_airflow.post import Poster, SettingError
from dagwright_airflow.signature import SecretError, Signer
from dagwright_airflow.spool import Pause, Spool


def event(number):
    return {"version": 1, "id": f"{number:032x}", "kind": "dag_run", "number": number}


def sender(folder, url, **bounds):
    return Sender(Spool(folder, **bounds), Poster(url, Signer(SECRET), timeout=PATIENCE_SECONDS))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(feedback, "PAUSE_SECONDS_FIRST", 0.01)
    monkeypatch.setattr(feedback, "PAUSE_SECONDS_MAX", 0.05)


@pytest.fixture
def folder(tmp_path):
    """A spool; what still waits for a daemon ends with it, before another daemon has the same port."""
    yield tmp_path / "spool"
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)


def numbers(found):
    return [event["number"] for event in found]


def left(folder):
    return len(Spool(folder).entries())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# === signatures ===


def test_the_specifications_example_is_signed_as_there():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    message = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert Signer(secret).sign(*message) == signed
    assert Signer(secret.removeprefix("whsec_")).sign(*message) == signed
    assert Signer(f"{SECRET} {secret}").sign(*message).split(" ")[1] == signed
    assert repr(Signer(secret)) == "Signer(***)"


@pytest.mark.parametrize("secret", ["", " ", "whsec_#", "aHVudGVyMg==", "whsec_" + "A" * 200, "whsec_é"])
def test_what_is_no_secret_is_refused_without_being_told(secret):
    with pytest.raises(SecretError) as raised:
        Signer(secret)
    assert not secret.strip() or secret not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://daemon",
        "http://",
        "http://user:pw@daemon",
        "http://daemon/x?y=z",
        "http://daemon/x\r\nx: y",
        "http://daemon/ x",
        "http://daemon:port",
        "http://[",
    ],
)
def test_what_is_no_url_is_refused_without_being_told(url):
    with pytest.raises(SettingError) as raised:
        Poster(url, Signer(SECRET))
    assert "pw" not in str(raised.value)


# === sending ===


def test_events_arrive_in_order_over_one_signed_connection(daemon, folder):
    ours = sender(folder, daemon.url)
    for number in range(50):
        ours.submit(event(number))
    assert numbers(daemon.wait_taken(50)) == list(range(50))
    assert ours.flush(PATIENCE_SECONDS)
    assert left(folder) == 0


def test_a_daemon_that_is_away_gets_everything_in_order_when_it_is_back(folder):
    port = free_port()
    ours = sender(folder, f"http://127.0.0.1:{port}")
    for number in range(20):
        ours.submit(event(number))
    assert ours.flush(PATIENCE_SECONDS), "nobody waits for a daemon that is away"
    assert left(folder) == 20
    with Daemon(port) as daemon:
        for number in range(20, 25):
            ours.submit(event(number))
        assert numbers(daemon.wait_taken(25)) == list(range(25))


def test_a_later_process_sends_what_an_earlier_one_left(folder):
    earlier = Spool(folder)
    for number in range(3):
        earlier.put(events.encode(event(number)))
    with Daemon() as daemon:
        sender(folder, daemon.url).wake()
        assert numbers(daemon.wait_taken(3)) == [0, 1, 2]


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429, 302, 401, 403, 404, 405])
def test_what_may_change_is_tried_again(daemon, folder, status):
    daemon.answers = [(status, {}), (status, {"location": "/elsewhere"})]
    ours = sender(folder, daemon.url)
    ours.submit(event(1))
    ours.submit(event(2))
    assert numbers(daemon.wait_taken(2)) == [1, 2]
    assert numbers(daemon.posts) == [1, 1, 1, 2]


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_what_the_daemon_refuses_is_given_up_and_said(daemon, folder, status, caplog):
    daemon.answers = [(status, {})]
    ours = sender(folder, daemon.url)
    ours.submit(event(1))
    ours.submit(event(2))
    assert numbers(daemon.wait_taken(1)) == [2]
    assert "DW0899" in caplog.text
    assert f"{1:032x}" in caplog.text


def test_the_daemon_may_ask_for_a_pause(daemon, folder):
    daemon.answers = [(503, {"retry-after": "3000"})]
    ours = sender(folder, daemon.url)
    ours.submit(event(1))
    assert ours.flush(PATIENCE_SECONDS)
    pause = Spool(folder).pause()
    assert pause.failures == 1
    assert 2900 < pause.until - time.time() <= 3000
    # Other processes heed it.
    other = sender(folder, daemon.url)
    other.submit(event(2))
    assert other.flush(PATIENCE_SECONDS)
    assert len(daemon.posts) == 1
    Spool(folder).set_pause(None)
    other.wake()
    assert numbers(daemon.wait_taken(2)) == [1, 2]


@pytest.mark.parametrize("answer", [b"", b"junk\r\n\r\n", b"HTTP/1.1 "])
def test_wrong_answers_lose_nothing(folder, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ours = sender(folder, f"http://127.0.0.1:{port}")
        ours.submit(event(1))
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
        assert ours.flush(PATIENCE_SECONDS)
    assert left(folder) == 1
    with Daemon(port) as daemon:
        ours.wake()
        assert numbers(daemon.wait_taken(1)) == [1]


def test_a_slow_daemon_holds_up_nobody(daemon, folder):
    daemon.hold.clear()
    ours = sender(folder, daemon.url)
    ours.submit(event(0))
    assert daemon.asked.wait(PATIENCE_SECONDS)
    # It has taken a post, and says nothing. These return nevertheless, or the test never ends.
    for number in range(1, 10):
        ours.submit(event(number))
    assert not ours.flush(0.01)
    assert left(folder) == 10
    daemon.hold.set()
    assert numbers(daemon.wait_taken(10)) == list(range(10))


def test_a_daemon_that_trickles_is_cut_off(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        poster = Poster(
            f"http://127.0.0.1:{server.getsockname()[1]}", Signer(SECRET), timeout=PATIENCE_SECONDS, total=0.2
        )
        ours = Sender(Spool(folder), poster)
        ours.submit(event(1))
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
            # It never ends its header; the sender ends the connection.
            while connection.recv(65536):
                pass
        assert ours.flush(PATIENCE_SECONDS)
    assert left(folder) == 1


def test_two_processes_send_nothing_twice_and_nothing_out_of_order(daemon, folder):
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); import test_feedback as t\n"
        "ours = t.sender(Path(sys.argv[1]), sys.argv[2])\n"
        "for number in range(100): ours.submit(t.event(number) | {'id': f'{t.os.getpid():x}{number:08x}'.zfill(32)})\n"
        "assert ours.flush(t.PATIENCE_SECONDS)"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), daemon.url, str(here)], env=environment)
        for _ in range(2)
    ]
    assert [process.wait(PATIENCE_SECONDS * 4) for process in started] == [0, 0]
    taken = daemon.wait_taken(200)
    assert len({found["id"] for found in taken}) == len(taken) == 200
    by_process = {}
    for found in taken:
        by_process.setdefault(found["id"][:-8], []).append(found["number"])
    assert list(by_process.values()) == [list(range(100))] * 2
    assert left(folder) == 0


def test_a_forked_process_has_a_sender_of_its_own(daemon):
    ours = feedback.sender()
    ours.submit(event(1))
    daemon.wait_taken(1)
    assert feedback.sender() is ours
    with feedback._guard:
        child = os.fork()
        if child == 0:
            try:
                theirs = feedback.sender()
                theirs.submit(event(2))
                os._exit(0 if theirs is not ours and theirs.flush(PATIENCE_SECONDS) else 1)
            finally:
                os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert numbers(daemon.wait_taken(2)) == [1, 2]


def test_wrong_settings_are_said_once_and_never_told(daemon, monkeypatch, caplog):
    monkeypatch.setenv("DAGWRIGHT_FEEDBACK_SECRET", "hunter2")
    assert [feedback.sender(), feedback.sender()] == [None, None]
    assert caplog.text.count("DAGWRIGHT_FEEDBACK_SECRET") == 1
    assert "hunter2" not in caplog.text
    monkeypatch.setenv("DAGWRIGHT_FEEDBACK_SECRET", SECRET)
    monkeypatch.setenv("DAGWRIGHT_FEEDBACK_URL", "http://me:hunter3@daemon")
    assert feedback.sender() is None
    assert "hunter3" not in caplog.text
    monkeypatch.delenv("DAGWRIGHT_FEEDBACK_URL")
    assert feedback.sender() is None
    assert SECRET not in repr(feedback.settings.Feedback("u", SECRET, Path()))


# === the spool ===


def test_a_full_spool_drops_the_oldest_and_reports_how_many(folder):
    full = Spool(folder, events_max=5)
    for number in range(12):
        full.put(events.encode(event(number)))
    assert left(folder) == 5
    with Daemon() as daemon:
        sender(folder, daemon.url).wake()
        report, *rest = daemon.wait_taken(6)
    assert (report["kind"], report["dropped"]) == ("events_dropped", 7)
    assert numbers(rest) == [7, 8, 9, 10, 11]
    assert Spool(folder).dropped() == []


def test_a_report_that_was_not_taken_is_repeated_as_the_same(daemon, folder):
    daemon.answers = [(503, {}), (503, {})]
    ours = sender(folder, daemon.url, events_max=1)
    full = Spool(folder, events_max=1)
    for number in range(3):
        full.put(events.encode(event(number)))
    ours.wake()
    daemon.wait_taken(2)
    reports = [found for found in daemon.posts if found["kind"] == "events_dropped"]
    assert len(reports) == 3
    assert {(found["id"], found["dropped"]) for found in reports} == {(reports[0]["id"], 2)}


def test_bytes_are_bounded_too(folder):
    full = Spool(folder, bytes_max=1000)
    for _ in range(5):
        full.put(b"x" * 400)
    assert [entry.size for entry in full.entries()] == [400, 400]
    assert sum(count for _, count in full.dropped()) == 3
    with pytest.raises(ValueError, match="65537 bytes"):
        full.put(b"x" * (spool.EVENT_BYTES_MAX + 1))


def test_a_large_spool_is_looked_at_now_and_then(folder):
    full = Spool(folder, events_max=1000)
    for _ in range(1200):
        full.put(b"{}")
    assert 950 <= left(folder) <= 1000 + 64
    assert left(folder) + sum(count for _, count in full.dropped()) == 1200


def test_the_spool_is_for_its_user_alone(folder):
    Spool(folder).put(b"{}")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_order_outlives_a_clock_that_is_set_back(folder, monkeypatch):
    times = iter([2_000, 1_000, 1_000, 3_000])
    monkeypatch.setattr(spool, "time", SimpleNamespace(time_ns=lambda: next(times), time=time.time))
    ours = Spool(folder)
    for number in range(4):
        ours.put(str(number).encode())
    assert [ours.read(entry) for entry in ours.entries()] == [b"0", b"1", b"2", b"3"]


def test_junk_in_the_spool_is_passed_over(daemon, folder, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    ours = Spool(folder)
    ours.put(events.encode(event(1)))
    for junk in [b"", b"[]", b"{", b'{"id":7}', b'{"id":"x\\r\\ny: z"}', b"[" * 60_000, b"\xff"]:
        ours.put(junk)
    (folder / "readme.txt").write_text("x")
    (folder / ".half.tmp").write_text("x")
    os.utime(folder / ".half.tmp", (0, 0))
    secret = tmp_path / "secret"
    secret.write_bytes(events.encode(event(3)))
    (folder / "00000000000000000001-1-1-1.json").symlink_to(secret)
    ours.put(events.encode(event(2)))
    sender(folder, daemon.url).wake()
    assert numbers(daemon.wait_taken(2)) == [1, 2], "and a link is never followed"
    assert caplog.text.count("is no event") == 7
    assert secret.exists()
    assert (folder / "readme.txt").exists()
    assert not (folder / ".half.tmp").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"until": "x"}', '{"until": 1e300, "failures": 1}', '{"until": NaN, "failures": 1}', "[" * 9000],
)
def test_a_pause_that_makes_no_sense_is_none(folder, content):
    folder.mkdir()
    (folder / "pause").write_text(content)
    assert Spool(folder).pause().until == 0.0


def test_pauses_are_shared(folder):
    ours = Spool(folder)
    ours.put(b"{}")
    until = time.time() + 60
    ours.set_pause(Pause(until, 3))
    assert Spool(folder).pause() == Pause(until, 3)
    ours.set_pause(None)
    assert Spool(folder).pause() == Pause(0.0, 0)


def test_only_one_takes_out(folder):
    ours = Spool(folder)
    with ours.locked() as held:
        assert not held, "nothing was ever put"
    ours.put(b"{}")
    with ours.locked() as held, Spool(folder).locked() as again:
        assert (held, again) == (True, False)
    with Spool(folder).locked() as held:
        assert held


def test_events_are_one_line_of_ascii():
    encoded = events.encode({"a": "é\n\u2028", "b": None})
    assert encoded == b'{"a":"\\u00e9\\n\\u2028","b":null}'
    assert json.loads(encoded)["a"] == "é\n\u2028"
