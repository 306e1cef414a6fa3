"""What the linear policies and `auto` share: Bayesian linear models, compiled.

`models` is the maths of models side by side, `policy` what one of them needs to be a policy for
years; `gaussian` holds their weights, `fourier` their non-linear features. `kernels`, `sampling`,
`hashing`, `slates` and `ruled` are what runs per decision and per example, `compiled` says how, and
`numpy_kernels` stands in where there is no compiler. `drawing` has a whole slate scored and drawn
in one such call, under rules or without, which finds by their `addresses` the arrays that stay the
same.
"""
