"""Methods carry the docstrings of the functions that they call."""

import inspect

from lme4py.docstrings import carries
from lme4py.inference.estimates.coefficients import coef_table
from lme4py.results import MEGLMResult


def greet(fit, name, greeting="hello", *, seed=None, n_jobs=1, **kw):
    """Say a word.

    Parameters
    ----------
    fit : Fit
    name : {"a", "b"}
        Who is meant,
        on two lines.
    greeting : str
    seed, n_jobs : int
        Of the draws.
    **kw
        What is left.

    Returns
    -------
    str

    Examples
    --------
    >>> greet(None, "a")
    """


def test_only_the_parameters_that_the_method_has_are_carried():
    @carries(greet)
    def method(self, name, *, n_jobs=1, **kw):
        pass

    assert method.__doc__ == inspect.cleandoc(
        """Say a word.

        Parameters
        ----------
        name : {"a", "b"}
            Who is meant,
            on two lines.
        n_jobs : int
            Of the draws.
        **kw
            What is left.

        Returns
        -------
        str"""
    )


def test_what_the_method_says_itself_comes_first():
    @carries(greet)
    def method(self, name, other):
        """Say another word.

        Parameters
        ----------
        other : int
            Its own.

        Examples
        --------
        >>> 1 + 1
        2
        """

    text = method.__doc__
    assert text.startswith("Say another word.\n\nParameters\n----------\nname : {")
    assert "other : int\n    Its own.\n\nReturns\n-------\nstr\n\nExamples\n--------\n>>> 1 + 1\n2" in text
    assert "Say a word" not in text
    assert "greet(" not in text


def test_methods_of_results_have_the_words_of_their_functions():
    own, given = inspect.getdoc(MEGLMResult.coef_table), inspect.getdoc(coef_table)
    assert own.partition("\n")[0] == given.partition("\n")[0]
    assert "fit : Fit" in given
    assert "fit : Fit" not in own
    assert inspect.signature(MEGLMResult.coef_table).parameters.keys() >= {"self", "ddf", "vcov", "cluster"}
