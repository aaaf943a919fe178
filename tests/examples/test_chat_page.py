"""The chat in a real browser, in two tabs: on one worker or on two, of one uWSGI or of two."""

from __future__ import annotations

import os
import re
import signal

import pytest

PHONE = {"width": 360, "height": 640}


def join(page, name):
    page.type("#name", name)
    page.press_enter()
    page.wait_for("document.querySelector('#count').innerText !== '0'")


def say(page, text):
    page.type("#text", text)
    page.press_enter()


PEOPLE = "[...document.querySelectorAll('#people li')].map(line => line.firstChild.data)"


def people(page):
    return page.evaluate(PEOPLE)


def place(page):
    """Where the page says that it is connected: in which uWSGI, or an empty text, and in which process."""
    found = re.search(r"to (?:(\w+), )?worker \d+, process (\d+)", page.text("#status"))
    return found[1] or "", int(found[2])


def wait_for_people(page, *names):
    page.wait_for(f"{PEOPLE}.join() === {','.join(names)!r}")


def are_elsewhere(first, second, what):
    """Have Bob's tab come anew until it is elsewhere than the other: who gets a connection, uWSGI's workers decide."""
    for _ in range(100):
        if place(first)[what] != place(second)[what]:
            return
        second.navigate(second.evaluate("location.href"))
        join(second, "Bob")
    raise AssertionError(f"all connections went to {place(first)}")


def talk(ada, bob, text):
    """Each says something, and both see both."""
    for author, speaker in (("Ada", ada), ("Bob", bob)):
        say(speaker, f"{author}: {text}")
        for page in (ada, bob):
            page.wait_for_text("#log", f"{author}: {text}")


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


WORKER, INSTANCE = 1, 0


def test_tabs_on_different_workers_see_and_hear_each_other(start_demo, open_page):
    demo = start_demo("--processes", "4")
    ada, bob = open_page(demo.url), open_page(demo.url)
    join(ada, "Ada")
    join(bob, "Bob")
    are_elsewhere(ada, bob, WORKER)
    for page in (ada, bob):
        wait_for_people(page, "Ada", "Bob")
    talk(ada, bob, "hello")
    bob.close()
    wait_for_people(ada, "Ada")


@pytest.fixture(params=["workers", "instances"])
def apart(request, start_demo, start_instances, open_page):
    """Two tabs on different workers of one uWSGI, or on different uWSGIs behind nginx, which meet in a Redis."""
    if request.param == "workers":
        demo, what = start_demo(), WORKER
    else:
        demo, what = start_instances(), INSTANCE
    ada, bob = open_page(demo.url), open_page(demo.url)
    join(ada, "Ada")
    join(bob, "Bob")
    are_elsewhere(ada, bob, what)
    for page in (ada, bob):
        wait_for_people(page, "Ada", "Bob")
    return ada, bob


def test_a_worker_that_is_killed_while_tabs_talk_is_seen_to_leave_and_its_tab_returns(apart):
    ada, bob = apart
    talk(ada, bob, "hello")
    bob.evaluate("window.setTimeout = (connect) => { window.comeBack = connect; }")  # not yet
    _, killed = place(bob)
    os.kill(killed, signal.SIGKILL)
    say(ada, "Bob?")
    ada.wait_for_text("#log", "Bob?")
    bob.wait_for_text("#log", "The connection is lost.")
    wait_for_people(ada, "Ada")
    ada.wait_for_text("#log", "Bob has left.")
    bob.evaluate("comeBack()")
    bob.wait_for_text("#status", "connected as Bob")
    for page in (ada, bob):
        wait_for_people(page, "Ada", "Bob")
    assert place(bob)[WORKER] != killed
    talk(ada, bob, "here again")


def test_a_tab_returns_by_itself_when_its_worker_was_killed(apart):
    """Where the other has seen it leave by then or not: in the end it is there once, where it is now."""
    ada, bob = apart
    _, killed = place(bob)
    os.kill(killed, signal.SIGKILL)
    bob.wait_for_text("#log", "The connection is lost.")  # which stays; it may be back in no time
    bob.wait_for_text("#status", "connected as Bob")
    _, process = place(bob)
    assert process != killed
    ada.wait_for_text("#people", f"process {process}")
    for page in (ada, bob):
        wait_for_people(page, "Ada", "Bob")
    talk(ada, bob, "here again")


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
        assert people(page) == []
        assert page.evaluate("document.querySelector('#say button').disabled")
    start_demo(port=demo.port)
    for page, name in zip(tabs, ["Ada", "Bob"], strict=True):
        page.wait_for_text("#status", f"connected as {name}")
        page.wait_for("document.querySelector('#count').innerText === '2'")
        assert sorted(people(page)) == ["Ada", "Bob"]
    say(tabs[0], "Here again")
    tabs[1].wait_for_text("#log .said", "Here again")


def test_the_same_name_in_two_tabs_is_one_person_and_none_is_a_guest(demo, open_page):
    first, second, third = (open_page(demo.url) for _ in range(3))
    join(first, "Ada")
    join(second, " Ada ")
    join(third, "")
    guest = re.search(r"You are here as (Guest \d+)\.", third.text("#log"))[1]
    for page in (first, second, third):
        wait_for_people(page, "Ada", guest)
    say(second, "I am one")
    first.wait_for_text("#log .mine", "I am one")
    second.close()
    third.close()
    wait_for_people(first, "Ada")


def test_a_room_is_a_page_of_its_own(demo, open_page):
    lobby, blue, other = (open_page(f"{demo.url}{room}") for room in ("", "rooms/blue%20sky", "rooms/blue%20sky"))
    join(lobby, "Ada")
    join(blue, "Bob")
    join(other, "Eve")
    assert [page.text("#room") for page in (lobby, blue, other)] == ["lobby", "blue sky", "blue sky"]
    for page in (blue, other):
        wait_for_people(page, "Bob", "Eve")
    assert people(lobby) == ["Ada"]


def test_what_others_write_is_never_html(demo, open_page):
    ada, mallory = open_page(demo.url), open_page(demo.url)
    join(ada, "Ada")
    join(mallory, "<img src=x onerror=1>")
    say(mallory, "<script>document.title = 'owned'</script><b>bold</b>")
    ada.wait_for_text("#log .said .text", "<b>bold</b>")
    wait_for_people(ada, "<img src=x onerror=1>", "Ada")
    assert people(ada) == ["<img src=x onerror=1>", "Ada"]
    assert ada.evaluate("document.querySelectorAll('img, b:not(h1 b), #log script').length") == 0
    assert ada.evaluate("document.title") == "uWASP chat"


def test_the_page_asks_nobody_but_its_server(tabs, demo):
    for page in tabs:
        assert page.requests == [demo.url, f"{demo.url}uwasp.js", f"{demo.url.replace('http', 'ws')}rooms/lobby"]


def test_on_a_phone_nothing_is_cut_off_and_no_field_makes_it_zoom(demo, open_page):
    page = open_page(f"{demo.url}rooms/{'W' * 24}")
    page.resize(**PHONE, mobile=True)
    join(page, "A" * 24)
    say(page, "W" * 200)
    page.wait_for_text("#log .said", "WWW")
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    assert page.evaluate("document.documentElement.scrollHeight") == PHONE["height"]
    status = "document.querySelector('#status')"
    assert page.evaluate(f"{status}.getBoundingClientRect().right") <= 360
    assert page.evaluate(f"{status}.scrollWidth <= {status}.clientWidth")
    every = "[...document.querySelectorAll('input, button')].every"
    assert page.evaluate(f"{every}(element => element.getBoundingClientRect().right <= 360)")
    # iOS zooms into fields whose text is smaller than 16 px.
    assert page.evaluate(f"{every}(element => parseFloat(getComputedStyle(element).fontSize) >= 16)")
