"""The pages of the example `websocket` in headless Chromium, driven through chromedriver: two
visitors chat in two rooms, one leaves, and the second page measures round trips.

usage: websocket.py URL FOLDER_FOR_SCREENSHOTS
"""
import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

URL, FOLDER = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2])
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,700",
]
PATIENCE = 30
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def call(base, method, path, body=None):
    data = json.dumps(body or {}).encode() if method == "POST" else None
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)["value"]


class Browser:
    def __init__(self, driver):
        self.profile = tempfile.TemporaryDirectory()
        args = [*FLAGS, f"--user-data-dir={self.profile.name}"]
        wish = {"browserName": "chrome", "goog:chromeOptions": {"args": args},
                "goog:loggingPrefs": {"browser": "ALL"}}
        session = call(driver, "POST", "/session", {"capabilities": {"alwaysMatch": wish}})
        self.base = f"{driver}/session/{session['sessionId']}"

    def open(self, path):
        call(self.base, "POST", "/url", {"url": URL + path})

    def run(self, script):
        return call(self.base, "POST", "/execute/sync", {"script": script, "args": []})

    def until(self, script):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = self.run(f"return {script}")
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page says: " + self.run("return document.body.innerText"))

    def type(self, css, text):
        found = call(self.base, "POST", "/element", {"using": "css selector", "value": css})[ELEMENT]
        call(self.base, "POST", f"/element/{found}/value", {"text": text})

    def say(self, text):
        self.type("[name=text]", text + "\ue007")

    def shot(self, name):
        picture = call(self.base, "GET", "/screenshot")
        (FOLDER / name).write_bytes(base64.b64decode(picture))

    def errors(self):
        log = call(self.base, "POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def close(self):
        call(self.base, "DELETE", "")
        self.profile.cleanup()


def lines(text):
    return f"[...document.querySelectorAll('#lines li')].some(e => e.innerText.includes({json.dumps(text)}))"


def join(browser, name, room):
    browser.open("/")
    browser.run(f"sessionStorage.setItem('name', {json.dumps(name)}); location.hash = {json.dumps(room)}; location.reload()")
    browser.until("document.getElementById('status').innerText === 'connected'")
    browser.until(f"[...document.querySelectorAll('#members li')].some(e => e.innerText === {json.dumps(name)})")


def chat(ann, bob):
    join(ann, "Ann", "lobby")
    join(bob, "Bob", "lobby")
    ann.until("document.getElementById('count').innerText === '2'")
    ann.say("Hello Bob, \u20ac & <b>no markup</b>")
    bob.until(lines("Hello Bob, \u20ac & <b>no markup</b>"))
    bob.say("Hello Ann")
    ann.until(lines("Hello Ann"))
    ann.shot("chat.png")
    # Another room hears nothing of the first; who comes back gets the history.
    bob.run("[...document.querySelectorAll('#rooms button')].find(e => e.innerText.startsWith('rust')).click()")
    ann.until("document.getElementById('count').innerText === '1'")
    bob.until("document.querySelectorAll('#lines li').length === 0")
    ann.say("Are you gone?")
    ann.until(lines("Are you gone?"))
    assert not bob.run(f"return {lines('Are you gone?')}"), "heard in another room"
    bob.run("[...document.querySelectorAll('#rooms button')].find(e => e.innerText.startsWith('lobby')).click()")
    bob.until(lines("Are you gone?"))
    # A page that is left is gone from the list.
    bob.open("/echo")
    ann.until("document.getElementById('count').innerText === '1'")


def echo(browser):
    browser.until("document.querySelectorAll('#results tr').length === 1")
    browser.run("document.querySelector('[name=size]').value = '65536'; document.querySelector('[name=count]').value = '200'")
    browser.run("document.querySelector('#run button').click()")
    browser.until("document.querySelectorAll('#results tr').length === 2")
    browser.shot("echo.png")
    print(browser.run("return document.getElementById('results').innerText"))


FOLDER.mkdir(parents=True, exist_ok=True)
driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
browsers = []
try:
    for line in driver.stdout:
        if "started successfully on port" in line:
            port = int(line.rsplit("port", 1)[1].strip(" .\n"))
            break
    for _ in range(2):
        browsers.append(Browser(f"http://127.0.0.1:{port}"))
    chat(*browsers)
    echo(browsers[1])
    found = [error for browser in browsers for error in browser.errors()]
    assert not found, found
    print("browser: ok")
finally:
    for browser in browsers:
        browser.close()
    driver.terminate()
