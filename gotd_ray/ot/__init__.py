"""The mathematics of the transport: numpy and torch only.

Notation, one convention for every module here (POT, OTT and GeomLoss each have another, see tests/oracles.py):

=========  ============  =====================================================================
x, a       (n,d), (n,)   candidates and their weights, sum a = 1
y, b       (m,d), (m,)   targets and their weights, sum b = 1
C          (n,m)         cost |x_i - y_j|^2, in [0, 4] for unit vectors; never stored
epsilon    scalar        temperature, in units of C
f, g       (n,), (m,)    dual potentials, in units of C
P          (n,m)         plan, P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon); never stored
=========  ============  =====================================================================

The score of a candidate is its potential f: the gradient of OT(candidates, target) with respect to the candidate's
mass (Kang et al. 2024, section 2). The lowest are taken. f is a function of g, so g (m numbers) is the whole state.
"""
