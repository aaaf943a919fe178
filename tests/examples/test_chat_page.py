"""The chat in a real browser, in two tabs."""

from __future__ import annotations

import os
import signal

import pytest

PHONE = {"width": 360, "height": 640}


def join(page, name):
    page.type("#name", name)
    page.press_enter()
    page.wait_for_text("#log", "You are here as")


def say(page, text):
    page.type("#text", text)
    page.press_enter()


def people(page):
    return page.text("#people").split("\n")


@pytest.fixture
def demo(start_demo):
    return start_demo()


@pytest.fixture
def tabs(demo, open_page):
    """Ada's tab and Bob's."""
    ada, bob = open_page(demo.url), open_page(demo.url)
    join(ada, "Ada")
    join(bob, "Bob")
    ada.wait_for_text("#log", "Bob has joined.")
    return ada, bob


def test_a_message_is_seen_in_both_tabs_with_the_name_of_its_author(tabs):
    ada, bob = tabs
    say(ada, "Hello Bob")
    for page in tabs:
        page.wait_for_text("#log .said", "Hello Bob")
    assert bob.text("#log .said .name") == "Ada"
    say(bob, "Hello Ada")
    for page in tabs:
        page.wait_for_text("#log .said:last-child", "Hello Ada")
    assert ada.text("#log .said:last-child .name") == "Bob"
    assert ada.errors == []
    assert bob.errors == []


def test_both_tabs_show_who_is_here(tabs):
    for page in tabs:
        assert people(page) == ["Ada", "Bob"]
        assert page.text("#count") == "2"


def test_a_closed_tab_leaves(tabs, open_page):
    ada, bob = tabs
    bob.close()
    ada.wait_for_text("#log", "Bob has left.")
    assert people(ada) == ["Ada"]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_the_tabs_come_back_by_themselves_after_the_server_was_restarted(tabs, demo, start_demo, killed):
    if killed:
        for pid in demo.processes():
            os.kill(pid, signal.SIGKILL)
        assert demo.popen.wait() == 1
    else:
        demo.stop()
    for page in tabs:
        page.wait_for_text("#log", "The connection is lost.")
        assert page.text("#people") == ""
        assert page.evaluate("document.querySelector('#say button').disabled")
    start_demo(port=demo.port)
    for page, name in zip(tabs, ["Ada", "Bob"], strict=True):
        page.wait_for_text("#status", f"connected as {name}")
        page.wait_for("document.querySelector('#count').innerText === '2'")
        assert sorted(people(page)) == ["Ada", "Bob"]
    say(tabs[0], "Here again")
    tabs[1].wait_for_text("#log .said", "Here again")


def test_a_taken_name_gets_a_number_and_a_missing_one_becomes_guest(demo, open_page):
    first, second, third = (open_page(demo.url) for _ in range(3))
    join(first, "Ada")
    join(second, " ada ")
    second.wait_for_text("#log", "You are here as ada 2, because ada is taken.")
    join(third, "")
    third.wait_for_text("#log", "You are here as Guest.")
    first.wait_for_text("#log", "Guest has joined.")
    assert people(first) == ["Ada", "ada 2", "Guest"]


def test_what_others_write_is_never_html(demo, open_page):
    ada, mallory = open_page(demo.url), open_page(demo.url)
    join(ada, "Ada")
    join(mallory, "<img src=x onerror=1>")
    say(mallory, "<script>document.title = 'owned'</script><b>bold</b>")
    ada.wait_for_text("#log .said .text", "<b>bold</b>")
    assert people(ada) == ["Ada", "<img src=x onerror=1>"]
    assert ada.evaluate("document.querySelectorAll('img, b:not(h1 b), #log script').length") == 0
    assert ada.evaluate("document.title") == "uWASP chat"


def test_the_page_asks_nobody_but_its_server(tabs, demo):
    for page in tabs:
        assert page.requests == [demo.url, f"{demo.url.replace('http', 'ws')}chat"]


def test_on_a_phone_nothing_is_cut_off_and_no_field_makes_it_zoom(demo, open_page):
    page = open_page(demo.url)
    page.resize(**PHONE, mobile=True)
    join(page, "A" * 24)
    say(page, "W" * 200)
    page.wait_for_text("#log .said", "WWW")
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    assert page.evaluate("document.documentElement.scrollHeight") == PHONE["height"]
    every = "[...document.querySelectorAll('input, button')].every"
    assert page.evaluate(f"{every}(element => element.getBoundingClientRect().right <= 360)")
    # iOS zooms into fields whose text is smaller than 16 px.
    assert page.evaluate(f"{every}(element => parseFloat(getComputedStyle(element).fontSize) >= 16)")
