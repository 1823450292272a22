# Laplace REML of generalised models by glmmTMB(REML = TRUE) and, with smooths, by mgcv's method = "REML": ../glmm_reml.json.
source("common.R")
suppressPackageStartupMessages({library(glmmTMB); library(mgcv)})

estimates <- function(fit) list(logLik = as.numeric(logLik(fit)), beta = vec(fixef(fit)$cond), se = vec(sqrt(diag(vcov(fit)$cond))),
                                sd = vec(sapply(VarCorr(fit)$cond, function(v) sqrt(v[1, 1]))), sigma = sigma(fit))
by_gam <- function(formula, family) {
  m <- gam(formula, family = family, data = d, method = "REML", control = gam.control(epsilon = 1e-10, newton = list(conv.tol = 1e-9)))
  list(logLik = -as.numeric(m$gcv.ubre), edf = vec(summary(m)$s.table[, "edf"]), beta = vec(m$coefficients[1:m$nsdf]),
       se = vec(sqrt(diag(m$Vp))[1:m$nsdf]), fitted = vec(fitted(m)))
}
set.seed(29)
n <- 150
d <- data.frame(x = round(runif(n), 3), z = round(runif(n, -2, 2), 3), f = sample(c("a", "b", "c"), n, TRUE), g = sample(letters[1:10], n, TRUE))
eta <- sin(5 * d$x) + .4 * (d$f == "b") + .5 * rnorm(10)[match(d$g, letters)]
d$count <- rpois(n, exp(.4 + eta)); d$event <- rbinom(n, 1, plogis(1.5 * eta))
d$f <- factor(d$f); d$g <- factor(d$g)
ticks <- read_data("grouseticks"); ticks$BROOD <- factor(ticks$BROOD); ticks$LOCATION <- factor(ticks$LOCATION); ticks$YEAR <- factor(ticks$YEAR)
ticks$more <- ticks$TICKS + 1
salamanders <- read_data("Salamanders")
write_reference("glmm_reml.json", list(
  versions = versions("glmmTMB", "mgcv"),
  data = lapply(d, function(v) if (is.factor(v)) vec(as.character(v)) else vec(v)),
  models = list(
    binomial = estimates(glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), read_data("cbpp"), binomial, REML = TRUE)),
    nbinomial = estimates(glmmTMB(count ~ mined + (1 | site), salamanders, nbinom2, REML = TRUE)),
    inflated = estimates(glmmTMB(count ~ mined + (1 | site), ziformula = ~mined, salamanders, poisson, REML = TRUE)),
    inflated_random = estimates(glmmTMB(count ~ mined + (1 | site), ziformula = ~(1 | site), salamanders, poisson, REML = TRUE)),
    crossed = estimates(glmmTMB(TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION), ticks, poisson, REML = TRUE)),
    gamma = estimates(glmmTMB(more ~ YEAR + (1 | BROOD), ticks, Gamma(link = "log"), REML = TRUE)),
    smooth_poisson = by_gam(count ~ f + s(x, bs = "cr", k = 8) + s(g, bs = "re"), poisson),
    smooth_binomial = by_gam(event ~ s(x, bs = "ps", k = 8) + s(z, k = 6) + s(g, bs = "re"), binomial),
    surface = by_gam(count ~ te(x, z, k = 4), poisson)
  )))
