"""What a chat server is told of the numbers of cards: once."""

from __future__ import annotations

from model.cascade.chat_history import ChatHistory


def told(history: ChatHistory) -> list[str]:
    return [message["content"] for message in history.messages() if message["role"] == "user"]


def test_a_cards_number_is_told_in_its_turn_and_in_no_later_one() -> None:
    history = ChatHistory(1_000)
    history.add("user", "my card is 4111 1111 1111 1111")
    assert told(history) == ["my card is 4111 1111 1111 1111"]
    history.add("assistant", "thank you")
    history.add("user", "when do you open")
    assert told(history) == ["my card is [card number]", "when do you open"]


def test_a_number_over_two_turns_is_told_in_no_later_one() -> None:
    history = ChatHistory(1_000)
    history.add("user", "it is 4111 1111")
    history.add("assistant", "go on")
    history.add("user", "1111 1111")
    history.add("assistant", "thank you")
    history.add("user", "bye")
    assert told(history) == ["it is [card number]", "[card number]", "bye"]


def test_the_machines_question_says_what_a_number_is() -> None:
    history = ChatHistory(1_000)
    history.add("assistant", "What is your account number?")
    history.add("user", "12345678")
    history.add("assistant", "And your telephone number?")
    history.add("user", "555 123 4567")
    history.add("user", "thanks")
    assert told(history)[1:] == ["[account number]", "555 123 4567 thanks"]


def test_the_words_of_digits_are_the_calls_languages() -> None:
    history = ChatHistory(1_000, "de")
    history.add("user", "vier eins eins eins, eins eins eins eins, eins eins eins eins, eins eins eins eins")
    history.add("user", "danke")
    assert told(history) == ["[card number] danke"]
