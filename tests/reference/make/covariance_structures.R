# Correlation matrices of nlme at given parameters: tests/reference/covariance_structures.json
# Rscript tests/reference/make/covariance_structures.R        (R 4.2.2, nlme 3.1-162)
suppressPackageStartupMessages({library(nlme); library(jsonlite)})

points <- data.frame(x = c(0, .5, 1.25, 2), y = c(0, 1, .5, .25), t = c(1, 2, 4, 5))
structures <- list(
  exp = corExp(c(1.3, .2), form = ~ x + y, nugget = TRUE),
  gau = corGaus(1.3, form = ~ x + y),
  sph = corSpher(c(1.7, .1), form = ~ x + y, nugget = TRUE),
  arma11 = corARMA(c(.6, -.3), form = ~ t, p = 1, q = 1),
  ar1 = corAR1(-.4, form = ~ t),
  car1 = corCAR1(.4, form = ~ x),
  cs = corCompSymm(-.2, form = ~ t),
  us = corSymm(c(.5, .3, .2, .4, .1, .35), form = ~ 1)
)
matrices <- lapply(structures, function(s) unclass(corMatrix(Initialize(s, points))))
write(toJSON(list(points = points, correlations = matrices), digits = NA, pretty = TRUE),
      "tests/reference/covariance_structures.json")
