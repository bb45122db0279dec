def test_a_message_gets_its_answer(run, router):
    shown = run("chat", "send", "--endpoint", "demo", "-m", "Hello")
    assert shown.exit_status == 0, shown
    assert shown.startswith('Hello! You said: "Hello".')
    assert shown.endswith(".\n") and shown.stderr == ""
    seen, = router.requests
    assert seen.json == {"model": "demo", "stream": False, "messages": [
        {"role": "user", "content": "Hello"}]}
