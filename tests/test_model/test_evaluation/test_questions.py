import numpy as np
import pytest

from model.evaluation.questions import Questions


@pytest.fixture
def questions(make_log) -> Questions:
    #                  0123456   789
    log = make_log("ab^aac", "dea")
    return Questions(log, np.array([5, 0, 8, 6]))  # c of u0, its first a, a of u1, its first d


def test_a_question_knows_its_user_answer_and_time(questions) -> None:
    assert questions.user.tolist() == [0, 0, 1, 1]
    assert questions.target.tolist() == [2, 0, 0, 3]
    assert questions.begin.tolist() == [0, 0, 6, 6]
    assert (questions.time_ms - questions.data.time_ms[0]).tolist() == [300_000, 0, 120_000, 0]


def test_histories_are_the_last_items_without_starts_of_sessions(questions) -> None:
    found = questions.histories(3)
    assert found.item.tolist() == [[1, 0, 0], [6, 6, 6], [6, 3, 4], [6, 6, 6]]
    assert found.type.tolist() == [[5, 5, 5], [0, 0, 0], [0, 5, 5], [0, 0, 0]]
    minutes = (found.time_ms - questions.data.time_ms[0]) // 60_000
    assert minutes[0].tolist() == [1, 3, 4]
    assert found.time_ms[1].tolist() == [0, 0, 0]


def test_what_was_seen_is_masked_each_row_by_its_own_history(questions) -> None:
    assert questions.seen(0).tolist() == [0, 1]
    scores = np.zeros((4, 6), np.float32)
    questions.mask_seen(scores)
    assert [np.flatnonzero(row == -np.inf).tolist() for row in scores] == [[0, 1], [], [3, 4], []]


def test_an_answer_that_was_seen_is_a_repeat(make_log) -> None:
    assert Questions(make_log("abab"), np.arange(4)).repeats.tolist() == [False, False, True, True]


def test_blocks_are_all_questions_in_order(questions) -> None:
    assert [block.row.tolist() for block in questions.blocks(3)] == [[5, 0, 8], [6]]
