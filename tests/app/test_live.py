"""`safelight live`: what it follows, what it writes, and who may speak to its page."""

import http.client
import json
import threading
import time
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

import safelight
from safelight.app.cli import main
from safelight.app.live import Newest, check_places, feed_of, follow, run_live
from safelight.app.live_page import LivePage
from safelight.app.live_sources import Camera, middle, watch, watcher
from safelight.errors import SafelightError
from tiny_model import SIZE


@pytest.fixture
def stream(model_folder):
    with safelight.stream(
        model_folder, prompt="a red cube", steps=2, strength=0.5, device="cpu"
    ) as opened:
        yield opened


def plain(level: int) -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), (level, 40, 200))


def later(condition, seconds: float = 300.0):
    """What a condition gives once it gives something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("nothing came")


def test_a_file_and_the_newest_of_a_folder_are_followed(tmp_path):
    fed, stop, reports = [], threading.Event(), []
    (tmp_path / "in" / "folder.png").mkdir(parents=True)
    plain(99).save(tmp_path / "in" / ".hidden.png")
    ends = []
    for path in (tmp_path / "in", tmp_path / "in" / "b.png"):
        feed = lambda picture, path=path: fed.append((path.name, picture.getpixel((0, 0))[0]))  # noqa: E731
        thread = threading.Thread(target=watch, args=(path, feed, reports.append, stop))
        thread.start()
        ends.append(thread)
    (tmp_path / "in" / "a.png").write_bytes(b"half of a pict")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    plain(10).save(tmp_path / "in" / "a.png")
    later(lambda: ("in", 10) in fed)
    assert ("b.png", 10) not in fed
    plain(20).save(tmp_path / "in" / "b.png")
    later(lambda: ("in", 20) in fed and ("b.png", 20) in fed)
    plain(30).save(tmp_path / "in" / "a.png")
    later(lambda: ("in", 30) in fed)
    (tmp_path / "in" / "b.png").write_bytes(b"half of a pict")
    later(lambda: len(reports) == 2)  # of each of the two who follow it
    plain(40).save(tmp_path / "in" / "b.png")
    later(lambda: ("in", 40) in fed and ("b.png", 40) in fed)
    assert all("b.png" in report and "\n" not in report for report in reports)
    assert ("in", 99) not in fed
    stop.set()
    for thread in ends:
        thread.join()


def test_the_newest_picture_is_written(stream, tmp_path):
    plain(50).save(tmp_path / "in.png")
    thread = threading.Thread(
        target=run_live, args=(stream, watcher(tmp_path / "in.png"), tmp_path / "out.png", 0)
    )
    thread.start()
    later((tmp_path / "out.png").is_file)
    first = np.asarray(Image.open(tmp_path / "out.png")).copy()
    plain(250).save(tmp_path / "in.png")
    later(lambda: not np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), first))
    stream.close()
    thread.join(300)
    assert not thread.is_alive()


def test_a_cameras_frames_come_as_rgb_in_the_proportions_asked_for(monkeypatch):
    frames = [np.full((4, 6, 3), (1, 2, 3), np.uint8)] * 3 + [np.full((4, 6), 9, np.uint8)]
    stop, fed, reports, released = threading.Event(), [], [], []
    monkeypatch.setattr("safelight.app.live_sources._SILENCE", 0.0)

    class Capture:
        def __init__(self, number):
            self.number = number

        def isOpened(self):  # noqa: N802
            return self.number == 0

        def set(self, *_):
            pass

        def read(self):
            if reports:
                stop.set()
            return (True, frames.pop()) if frames else (False, None)

        def release(self):
            released.append(self.number)

    cv2 = ModuleType("cv2")
    cv2.VideoCapture, cv2.CAP_PROP_BUFFERSIZE = Capture, 38
    Camera(cv2, 0).source(8, 8)(fed.append, reports.append, stop)
    assert [picture.size for picture in fed] == [(4, 4)] * 4
    assert [fed[i].getpixel((0, 0)) for i in (0, 3)] == [(9, 9, 9), (3, 2, 1)]
    assert reports == ["Camera 0 gives no frames; see whether it is plugged in."]
    assert released == [0]
    with pytest.raises(SafelightError, match="There is no camera 7"):
        Camera(cv2, 7)
    sizes = [middle(np.zeros((9, 6, 3), np.uint8), *size).size for size in ((8, 8), (16, 8))]
    assert sizes == [(6, 6), (6, 3)]


def test_a_fault_of_a_source_ends_it(stream, tmp_path):
    def broken(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_live(stream, broken, tmp_path / "out.png", 0)


def test_a_refused_picture_is_told_once_and_the_next_is_made(stream, monkeypatch):
    usual, taken, reports = stream._pixels, [], []

    def pixels(inputs):
        if inputs.picture.getpixel((0, 0))[0] == 13:
            raise SafelightError("refused")
        return usual(inputs)

    monkeypatch.setattr(stream, "_pixels", pixels)
    thread = threading.Thread(target=follow, args=(stream, taken.append, reports.append))
    thread.start()
    stream.update(picture=plain(13))
    later(lambda: reports)
    time.sleep(0.3)
    stream.update(picture=plain(14))
    later(lambda: taken)
    stream.close()
    thread.join(300)
    assert reports == ["refused"]
    assert [picture.number for picture in taken] == [2]


def test_ones_own_output_is_not_watched_by_another_name(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for watched, output in (("in", "link/x.png"), ("link", "in/x.png"), ("in/x.png", "link/x.png")):
        with pytest.raises(SafelightError, match="would be watched itself"):
            check_places(tmp_path / watched, None, tmp_path / output, shown=True)


@pytest.fixture
def page(stream):
    newest = Newest()
    served = LivePage(stream, feed_of(stream, hint=False), newest, 0)
    threads = [
        threading.Thread(target=served.serve_forever),
        threading.Thread(target=follow, args=(stream, newest.put, newest.fail)),
    ]
    for thread in threads:
        thread.start()
    yield served
    stream.close()
    served.shutdown()
    served.server_close()
    for thread in threads:
        thread.join()


def ask(page, method, path, body=None, token=True, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.server_port, timeout=60)
    headers = {"X-Token": page.token} | headers if token else headers
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer, answer.read()


def newest(page, after):
    """The answer with a later picture, however long that takes."""

    def later_one():
        answer, body = ask(page, "GET", f"/newest?after={after}")
        return (answer, body) if int(answer.headers["X-Number"]) > after else None

    return later(later_one, 300)


def test_the_page_draws_speaks_and_shows(page):
    address = urlsplit(page.url)
    assert address.hostname == "127.0.0.1"
    assert parse_qs(address.query)["token"] == [page.token]
    answer, body = ask(page, "GET", f"/?{address.query}", token=False)
    assert answer.status == 200
    assert b"a red cube" in body
    assert b'"draws": true' in body
    drawn = np.asarray(plain(90).convert("RGBA").resize((2 * SIZE, 2 * SIZE))).tobytes()
    assert ask(page, "POST", f"/draw?width={2 * SIZE}", drawn)[0].status == 204
    answer, first = newest(page, 0)
    number, width = answer.headers["X-Number"], answer.headers["X-Width"]
    assert (number, int(width), len(first)) == ("1", SIZE, SIZE * SIZE * 3)
    said = json.dumps({"prompt": "a blue ball", "negative": "", "seed": "3"})
    assert ask(page, "POST", "/say", said)[0].status == 204
    second = newest(page, int(number))[1]
    assert second != first
    with safelight.stream(
        page.stream._pipeline, prompt="a blue ball", steps=2, strength=0.5, seed=3
    ) as other:
        other.update(picture=plain(90).resize((2 * SIZE, 2 * SIZE)))
        assert other.next().levels.tobytes() == second


def test_what_is_wrong_is_answered(page):
    wrong = json.dumps({"prompt": "a AND b", "negative": "", "seed": "0"})
    answer, body = ask(page, "POST", "/say", wrong)
    assert (answer.status, body) == (400, b"AND does not go with a stream; ask for one thing.")
    texts = {"prompt": "a", "negative": "", "seed": "0"}
    for path, body in (
        ("/say", b"{"),
        ("/say", b"{}"),
        ("/say", b"[1]"),
        ("/say", b"[" * 30000),
        ("/say", json.dumps(texts | {"prompt": ["a"]})),
        ("/say", json.dumps(texts | {"prompt": "\ud800"})),
        ("/say", json.dumps(texts | {"seed": "1.5"})),
        ("/draw?width=7", b"123"),
        ("/draw?width=0", b""),
        ("/no", b""),
    ):
        answer, told = ask(page, "POST", path, body)
        assert (answer.status, told.count(b"\n"), bool(told)) == (400, 0, True)
    told = ask(page, "POST", "/say", json.dumps(texts | {"seed": "x"}))[1]
    assert told == b"A seed is a whole number, such as 7."
    assert ask(page, "GET", "/newest?after=x")[0].status == 400
    assert ask(page, "POST", "/say", b" " * (64 * 2**10 + 1))[0].status == 413
    answer, _ = ask(page, "POST", "/say", b"", **{"Content-Length": "-1"})
    assert answer.status == 400


def test_one_draws_where_that_changes_something_alone(model_folder, monkeypatch):
    fed = []

    def opened(stream, feed, newest, port):
        fed.append(feed)
        raise SafelightError("enough")

    monkeypatch.setattr("safelight.app.live_page.LivePage", opened)
    for options in ({}, {"strength": 0.5}):
        stream = safelight.stream(model_folder, device="cpu", **options)
        with pytest.raises(SafelightError, match="enough"):
            run_live(stream, None, None, 0)
    assert [feed is None for feed in fed] == [True, False]


def test_a_browser_that_goes_says_nothing(page, capsys):
    for error in (ConnectionResetError(), ZeroDivisionError()):
        try:
            raise error
        except (ConnectionError, ZeroDivisionError):
            page.handle_error(None, None)
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert "ConnectionResetError" not in told


def test_what_went_wrong_is_past_with_the_next_picture(stream):
    stream.update(picture=plain(1))
    newest = Newest()
    newest.fail("no")
    assert newest.after(0, 0.0) == (1, None, "no")
    picture = stream.next()
    newest.put(picture)
    assert newest.after(1, 0.0) == (2, picture, "")


def test_nobody_else_drives_the_page(page):
    said = json.dumps({"prompt": "mine", "negative": "", "seed": "0"})
    host = f"127.0.0.1:{page.server_port}"
    for headers in (
        {"X-Token": "guess"},
        {"X-Token": page.token, "Origin": "http://evil.example"},
        {"X-Token": page.token, "Origin": "null"},
        {"X-Token": page.token, "Origin": host},
        {"X-Token": page.token, "Host": f"evil.example:{page.server_port}"},
        {},
    ):
        for method, path in (("POST", "/say"), ("GET", "/newest?after=0")):
            assert ask(page, method, path, said, token=False, **headers)[0].status == 403
    assert ask(page, "GET", "/?token=guess", token=False)[0].status == 403
    assert ask(page, "GET", "/", token=False)[0].status == 403
    assert page.stream.newest.prompt == "a red cube"
    assert ask(page, "POST", "/say", said, Origin=f"http://{host}")[0].status == 204
    assert page.stream.newest.prompt == "mine"
    assert page.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_line(page, stream):
    with pytest.raises(SafelightError, match=f"Port {page.server_port} cannot be had"):
        LivePage(stream, None, Newest(), page.server_port)
    with pytest.raises(SafelightError, match="Port 70000 cannot be had"):
        LivePage(stream, None, Newest(), 70000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--watch", "a.png", "--camera", "0"], "two sources"),
        (["--watch", "a.png"], "The picture would do nothing"),
        (["--watch", "none/a.png", "--strength", "0.5"], "The folder none does not exist"),
        (["-o", "x.png"], "--output writes what is made of --watch or --camera"),
        (["--watch", "a.png", "--strength", "0.5", "-o", "a.png"], "would be watched itself"),
        (["--watch", ".", "--strength", "0.5", "-o", "x.png"], "would be watched itself"),
        (["--watch", "a.png", "--strength", "0.5", "-o", "x.gif"], "Cannot tell the format"),
        (["--similarity", "0.9"], "--similarity compares pictures"),
        (["--hint"], "--hint is of one control"),
        (["--control", "canny", "--hint", "--strength", "0.5"], "A hint is no picture to begin"),
        (["--control", "canny:much"], "such as canny:0.8; got 'canny:much'"),
        (["--model", "nothing-here"], "No model 'nothing-here'"),
    ],
)
def test_mistakes_are_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["live", "a cube", *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_without_opencv_or_a_camera_it_says_so(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    assert main(["live", "a cube", "--camera", "0", "--strength", "0.5"]) == 2
    assert 'pip install "safelight[control]"' in capsys.readouterr().err
