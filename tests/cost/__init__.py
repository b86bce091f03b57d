"""The guard: what requests cost, counted in process and without a clock, compared with what is agreed.

Time depends on the machine and on what else it does; counts don't. For each kind of request this counts

- ``calls``: calls of Python functions of ours, those that attrs has made included;
- ``lines``: lines of ours that are executed, so that a loop within a function counts by its rounds; a statement over
  several lines counts once;
- ``others``: calls of Python functions of others (Twisted, the standard library);
- ``peak_bytes``: the most memory that is held beyond what was held before. Copies of a large body show here;
- ``writes`` and ``written``: calls of the transport's ``write``, and their bytes;

and ``kept_bytes``, what an idle stream and an idle reader hold. ``budgets.json`` has what each may be. A test fails
when one is exceeded, and also when one is undercut by far: then ``make cost-budgets`` writes the table anew, so that
what was won can't be lost again unnoticed. The same table holds for every version of Python: comprehensions, which
are functions in some of them, aren't counted as calls, and tolerances cover the rest.
"""
