# Smooths of several variables and of the levels of a factor, by mgcv's REML and ML and by gamm4: ../smooth_products.json.
source("common.R")
suppressPackageStartupMessages({library(mgcv); library(gamm4)})

set.seed(23)
n <- 160
d <- data.frame(x = round(runif(n), 3), z = round(rexp(n), 3), w = round(runif(n, -2, 2), 3), f = sample(c("a", "b"), n, TRUE),
                g = sample(letters[1:8], n, TRUE))
d$y <- round(sin(5 * d$x) * exp(-d$z) * 2 + .3 * d$w^2 * (d$f == "a") + rnorm(8)[match(d$g, letters)] * sin(4 * d$x) + rnorm(n) * .3, 4)
d$count <- rpois(n, exp(.6 + sin(5 * d$x) * exp(-d$z) * .8))
d$f <- factor(d$f); d$g <- factor(d$g)
new <- data.frame(x = c(-.1, .25, .6, 1.1), z = c(.5, 5, .9, .4), w = c(0, -1, 2.2, 1), f = factor(c("a", "b", "a", "b")), g = factor(c("a", "b", "c", "a"), levels(d$g)))
# Wood's (2013) statistic of the first smooth, the mean over both signs, from the model matrix, coefficients and covariance. What
# summary() prints of t2 is another one: its m$R is no root of X'X there.
wood <- function(m) {
  s <- m$smooth[[1]]; i <- s$first.para:s$last.para; rank <- summary(m)$s.table[1, "Ref.df"]
  R <- qr.R(qr(predict(m, type = "lpmatrix")[, i], tol = 0)); e <- eigen(R %*% m$Vp[i, i] %*% t(R), symmetric = TRUE)
  z <- drop(t(e$vectors) %*% (R %*% coef(m)[i])) / sqrt(pmax(e$values, 1e-300)); k <- floor(rank)
  (sum(z[seq_len(k)]^2) + (rank - k) * z[k + 1]^2) / rank
}
by_gam <- function(formula, ...) {
  m <- gam(formula, data = d, control = gam.control(epsilon = 1e-10, newton = list(conv.tol = 1e-12)), ...)
  p <- predict(m, new, se.fit = TRUE)
  list(sigma = sqrt(m$sig2), edf = vec(summary(m)$s.table[, "edf"]), fitted = vec(fitted(m)), predicted = vec(p$fit), se = vec(p$se.fit),
       criterion = as.numeric(m$gcv.ubre), wood = if (attr(terms(formula), "term.labels")[1] == "f") NULL else wood(m))
}
d$o <- factor(d$f, ordered = TRUE); new$o <- factor(new$f, ordered = TRUE)
poisson <- gamm4(count ~ t2(x, z, k = 5), family = poisson, data = d)
write_reference("smooth_products.json", list(
  versions = versions("mgcv", "gamm4", "lme4"),
  data = lapply(d[c("x", "z", "w", "f", "g", "y", "count")], function(v) if (is.factor(v)) vec(as.character(v)) else vec(v)),
  new = lapply(new[c("x", "z", "w", "f", "g")], function(v) if (is.factor(v)) vec(as.character(v)) else vec(v)),
  models = list(
    te = by_gam(y ~ te(x, z), method = "REML"),
    te_tp = by_gam(y ~ te(x, z, bs = "tp", k = c(6, 5)), method = "REML"),
    te_mixed = by_gam(y ~ te(x, w, bs = c("ps", "cc"), k = c(6, 6)), method = "REML"),
    te_three = by_gam(y ~ te(x, z, w, k = 4), method = "REML"),
    te_by = by_gam(y ~ f + te(x, z, by = f, k = 4), method = "REML"),
    te_ml = by_gam(y ~ te(x, z), method = "ML"),
    ti = by_gam(y ~ ti(x) + ti(z) + ti(x, z), method = "REML"),
    ti_tp = by_gam(y ~ s(x) + s(z) + ti(x, z, bs = "tp", k = 6), method = "REML"),
    t2 = by_gam(y ~ t2(x, z), method = "REML"),
    t2_tp = by_gam(y ~ t2(x, z, bs = "tp"), method = "REML"),
    ordered = by_gam(y ~ o + s(w, bs = "cr") + s(w, by = o, bs = "cr"), method = "REML"),
    fs_cyclic = by_gam(y ~ s(x, bs = "cr") + s(x, g, bs = "fs", k = 6, xt = "cc"), method = "REML"),
    plate = by_gam(y ~ s(x, z), method = "REML"),
    plate_small = by_gam(y ~ s(x, z, k = 12) + s(w, k = 6), method = "REML"),
    plate_by = by_gam(y ~ f + s(x, z, by = f, k = 15), method = "REML"),
    plate_ml = by_gam(y ~ s(x, w, k = 20), method = "ML"),
    te_least = by_gam(y ~ te(x, z, k = 3), method = "REML"),
    ti_least = by_gam(y ~ ti(x, k = 3, bs = "tp") + ti(z, k = 3, bs = "tp") + ti(x, z, bs = "tp", k = 3), method = "REML"),
    least = by_gam(y ~ s(x, k = 3) + s(w, bs = "cr", k = 3), method = "REML"),
    random = by_gam(y ~ s(w, bs = "cr") + s(g, bs = "re") + s(g, x, bs = "re") + s(f, g, bs = "re"), method = "REML"),
    poisson = list(edf = vec(pen.edf(poisson$gam)), fitted = vec(fitted(poisson$mer)), logLik = as.numeric(logLik(poisson$mer)))
  )))
