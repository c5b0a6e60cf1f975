import subprocess

from search.leftovers import no_leftovers


def test_what_was_started_inside_ends_even_without_the_mark_and_what_was_there_stays():
    with subprocess.Popen(["sleep", "97"]) as earlier:
        with no_leftovers():
            marked = subprocess.Popen(["sleep", "97"])
            unmarked = subprocess.Popen(["sleep", "97"], env={"PATH": "/usr/bin:/bin"})
        assert [marked.wait(timeout=10), unmarked.wait(timeout=10)] == [-9, -9]
        assert earlier.poll() is None
        earlier.kill()
