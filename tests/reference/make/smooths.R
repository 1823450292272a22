# Smooths by gamm4, and mgcv's by REML: ../smooths.json.
source("common.R")
suppressPackageStartupMessages({library(mgcv); library(gamm4)})

set.seed(11)
n <- 150
d <- data.frame(x = round(runif(n), 3), z = round(runif(n), 3), f = sample(c("a", "b"), n, TRUE), g = sample(letters[1:8], n, TRUE))
d$y <- round(sin(6 * d$x) * (d$f == "a") + d$z^2 + rnorm(8)[match(d$g, letters)] * .5 + rnorm(n) * .3, 4)
d$count <- rpois(n, exp(.5 + sin(6 * d$x) * .6 + rnorm(8)[match(d$g, letters)] * .3))
d$f <- factor(d$f); d$g <- factor(d$g)
new <- data.frame(x = c(-.1, .25, .6, 1.1), z = c(.5, .1, .9, .4), f = factor(c("a", "b", "a", "b")), g = factor("a", levels(d$g)))
rest <- function(m, extra = list()) c(list(sigma = sqrt(m$gam$sig2), logLik = as.numeric(logLik(m$mer)), fitted = vec(fitted(m$mer)),
                                           edf = vec(pen.edf(m$gam)), predicted = vec(predict(m$gam, new))), extra)
write_reference("smooths.json", list(
  versions = versions("mgcv", "gamm4", "lme4"),
  data = lapply(d, function(v) if (is.factor(v)) vec(as.character(v)) else vec(v)),
  new = lapply(new, function(v) if (is.factor(v)) vec(as.character(v)) else vec(v)),
  models = list(
    cr = rest(gamm4(y ~ s(x, bs = "cr", k = 8), data = d)),
    ps = rest(gamm4(y ~ s(x, bs = "ps", k = 9), data = d)),
    tp = rest(gamm4(y ~ s(x, k = 8) + s(z, k = 6), data = d)),
    cc = rest(gamm4(y ~ s(x, bs = "cc", k = 8), data = d)),
    by_factor = rest(gamm4(y ~ f + s(x, by = f, bs = "cr", k = 7), random = ~(1 | g), data = d)),
    by_number = rest(gamm4(y ~ s(x, by = z, bs = "cr", k = 7), data = d)),
    ml = rest(gamm4(y ~ s(x, k = 8), random = ~(1 | g), data = d, REML = FALSE)),
    poisson = rest(gamm4(count ~ s(x, bs = "cr", k = 8), random = ~(1 | g), family = poisson, data = d)))))
