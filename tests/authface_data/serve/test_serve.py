"""`authface serve` in Chromium: review, report and restoration, by keyboard and by touch."""

import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from browser import open_browser
from tiny_restorer import save_tiny_restorer

from authface_data.serve.server import Server
from manifests.run_folder import NOTES_FILE, read_notes
from manifests.schema import DECISIONS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.files import write_json
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow

STATUS = "document.getElementById('saved').textContent"
PAGE_WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def ws(filled, tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "ws"
    shutil.copytree(filled, root)
    run = save_tiny_restorer(root / "runs" / "tiny", 64)
    write_json(run / NOTES_FILE, {**read_notes(run), "stage": "restorer"})
    return Workspace(root)


@pytest.fixture(scope="module")
def address(ws):
    server = Server(ws, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server.address
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("downloads")) as browser:
        yield browser
        assert not browser.exceptions


@pytest.fixture
def show(chromium, address):
    """Opens a page of the server."""

    def open_page(page, is_ready="true"):
        chromium.send("Page.navigate", url=address + page)
        loaded = f"location.href === '{address}{page}' && document.readyState === 'complete'"
        chromium.wait_for(f"{loaded} && {is_ready}", 20)
        return chromium

    chromium.resize(1280, 800)
    return open_page


def status_of(url, *, host=None, method="GET"):
    request = urllib.request.Request(url, method=method, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def decisions(ws):
    rows = Store(ws, DECISIONS).read(["id", "reviewer", "decision", "decided_at"]).to_pylist()
    return [tuple(row.values())[:3] for row in sorted(rows, key=lambda row: row["decided_at"])]


def test_only_the_whole_address_on_this_computer_answers(address, ws):
    assert status_of(address) == 200
    root = address.rsplit("/", 2)[0]
    assert status_of(root + "/") == 404
    assert status_of(f"{root}/wrong-token/review/decisions", method="POST") == 404
    assert status_of(address, host="attacker.example") == 400
    with pytest.raises(UserError, match="not an address of this computer alone"):
        Server(ws, "0.0.0.0", 0)
    port = int(root.rsplit(":", 1)[1])
    with pytest.raises(UserError, match="choose another --port"):
        Server(ws, "127.0.0.1", port)


def test_decisions_of_the_keyboard_are_saved_at_once(show, ws):
    page = show("review/", "faces.length && cards.length")
    ids = page.evaluate("faces.map(idOf)")
    page.press("p")
    page.wait_for("document.getElementById('reviewer-dialog').open")
    page.insert_text("Anna Ö")
    page.click("#reviewer-save")
    page.wait_for(f"{STATUS} === 'saved in the workspace'")
    assert decisions(ws) == [(ids[0], "Anna Ö", "keep")]

    page.press("x", "x")
    page.wait_for(f"{STATUS} === 'saved in the workspace' && !unsaved.size")
    page.press("Backspace")  # what is saved cannot be erased
    page.wait_for("!unsaved.size")
    expected = {ids[0]: "keep", ids[1]: "drop", ids[2]: "unsure"}
    assert {face_id: decision for face_id, _, decision in decisions(ws)} == expected

    page = show("review/?sample=99", "cards.length")
    page.wait_for(f"answers['{ids[2]}'].decision === 'unsure'")
    page.evaluate(f"showFaces('all'); select(faces.findIndex((face) => idOf(face) === '{ids[1]}'))")
    assert page.evaluate("cards[current].querySelector('.mark').textContent") == "✕ drop"


def test_answers_wait_for_a_locked_workspace(show, ws):
    page = show("restore/")
    page.evaluate("localStorage.setItem('authface-reviewer', 'Bob')")
    page = show("review/", "cards.length && reviewerName() === 'Bob'")
    count = len(decisions(ws))
    with Workspace(ws.root).lock("test"):
        page.press("p")
        page.wait_for(f"{STATUS}.startsWith('not saved')")
        assert len(decisions(ws)) == count
    page.evaluate("save()")
    page.wait_for("!unsaved.size")
    assert decisions(ws)[-1][1:] == ("Bob", "keep")


def test_pages_fit_a_telephone(show, ws):
    for name, is_ready in (
        ("", "document.querySelector('.tasks')"),
        ("review/?sample=3", "cards.length === 3"),
        ("report", "document.querySelector('.contents a')"),
        ("restore/", "document.getElementById('drop')"),
    ):
        page = show(name, is_ready)
        page.resize(390, 844, touch=True)
        assert page.evaluate(PAGE_WIDTH) == 390, name
    page = show("review/?sample=3", "cards.length === 3")
    page.resize(390, 844, touch=True)
    page.evaluate("showFaces('all'); select(2)")
    page.tap("[data-decision=unsure]")
    page.wait_for("fieldOf(faces[2], 'decision') === 'unsure' && !unsaved.size")
    assert decisions(ws)[-1][2] == "unsure"


def test_photograph_is_restored_and_compared(show, photos):
    page = show("restore/", "document.getElementById('drop')")
    document = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    photo = min(photos.values(), key=lambda path: path.stat().st_size)
    page.send("DOM.setFileInputFiles", nodeId=node, files=[str(photo)])
    page.evaluate("$('steps').value = 1; null")
    page.click("#start")
    page.wait_for("!$('result').hidden || $('status').textContent.startsWith('Not')", 120)
    assert page.evaluate("$('status').textContent") == "restored"
    sizes = page.evaluate("['before', 'after'].map((id) => [$(id).naturalWidth, $(id).complete])")
    assert sizes[0] == sizes[1]

    page.evaluate("$('slider').focus()")
    page.press("ArrowRight")
    assert page.evaluate("$('compare').style.getPropertyValue('--at')") == "51%"
    result = page.evaluate("$('download').href")
    with urllib.request.urlopen(result) as response:
        assert response.headers["Content-Disposition"].startswith("attachment")


def test_wrong_photographs_and_models_are_refused(address):
    for query, message in (
        ("name=a.jpg&model=nobody", "no finished restorer named nobody"),
        ("name=a.exe&model=tiny", "cannot restore .exe"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}restore/jobs?{query}", data=b"x")
        assert caught.value.code == 422
        assert message in caught.value.read().decode()


def test_server_ends_when_nobody_uses_it(ws):
    Server(ws, "127.0.0.1", 0, idle_s=0.1).run()


def test_command_prints_the_address_and_ends_with_ctrl_c(ws):
    command = [sys.executable, "-P", "-m", "cli", "serve", "-w", ws.root, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        assert status_of(lines[1].strip()) == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "authface: stopped; every saved decision is in the workspace"
