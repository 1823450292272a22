# clmm.json.gz: ordinal models. `models`: at the maximum of their likelihood, written out below from its definition
# (Laplace, and Gauss-Hermite quadrature about the modes or, below zero points, about zero); `clmm_log_likelihood` is what
# clmm of ordinal reports. `early_stopped`: as clmm stops, where it stops early.
# Run in this directory: Rscript clmm.R [names]

suppressPackageStartupMessages({library(ordinal); library(Matrix)})
source("common.R")

# --- one row: log P(Y = k) and its derivatives in eta ----------------------------------------------------------------

distribution <- function(link) switch(link,
  logit = list(F = plogis, f = dlogis, g = function(x) dlogis(x) * (1 - 2 * plogis(x))),
  probit = list(F = pnorm, f = dnorm, g = function(x) -x * dnorm(x)),
  cauchit = list(F = pcauchy, f = dcauchy, g = function(x) -2 * x / (pi * (1 + x^2)^2)),
  # As clmm with one random intercept has them.
  loglog = list(F = function(x) -expm1(-exp(x)), f = function(x) exp(x - exp(x)), g = function(x) exp(x - exp(x)) * (1 - exp(x))),
  cloglog = list(F = function(x) exp(-exp(-x)), f = function(x) exp(-x - exp(-x)), g = function(x) exp(-x - exp(-x)) * (exp(-x) - 1)))

row_terms <- function(D, low, high, eta) {
  at <- function(f, x, end) ifelse(is.finite(x), f(x - eta), end)
  p <- at(D$F, high, 1) - at(D$F, low, 0)
  first <- -(at(D$f, high, 0) - at(D$f, low, 0)) / p
  list(value = log(p), first = first, second = (at(D$g, high, 0) - at(D$g, low, 0)) / p - first^2)
}

# --- the model ------------------------------------------------------------------------------------------------------

# Thresholds as a linear function of their parameters.
threshold_map <- function(kind, K) {
  n <- K - 1
  half <- n %/% 2
  if (kind == "flexible") return(diag(n))
  if (kind == "equidistant") return(cbind(1, seq_len(n) - 1))
  mirrored <- rbind(-diag(half)[rev(seq_len(half)), , drop = FALSE], if (n %% 2) 0, diag(half))
  if (kind == "symmetric2") return(mirrored)
  # central.1 (central.1 and central.2 where their number is even), then the distances from it.
  if (n %% 2) return(cbind(1, mirrored))
  steps <- mirrored[, -half, drop = FALSE]
  stop("symmetric thresholds of an even number are not needed here")
}

setup <- function(model, data) {
  formula <- as.formula(model$formula)
  bars <- lme4::findbars(formula)
  frame <- model.frame(lme4::subbars(formula), data)
  y <- as.integer(factor(model.response(frame)))
  X <- model.matrix(lme4::nobars(formula), data)[, -1, drop = FALSE]
  Z <- lme4::mkReTrms(bars, frame)
  list(y = y, K = max(y), X = X, Zt = Z$Zt, Lambdat = Z$Lambdat, Lind = Z$Lind, lower = Z$lower, theta = Z$theta, terms = Z,
       w = if (is.null(model$weights)) rep(1, length(y)) else data[[model$weights]],
       D = distribution(model$link), J = threshold_map(model$threshold, max(y)), nAGQ = model$nAGQ)
}

modes_at <- function(s, low, high, eta0, Lambdat, u) {
  A <- Lambdat %*% s$Zt
  objective <- function(u) sum(s$w * row_terms(s$D, low, high, eta0 + as.vector(crossprod(A, u)))$value) - sum(u^2) / 2
  value <- objective(u)
  for (i in 1:100) {
    r <- row_terms(s$D, low, high, eta0 + as.vector(crossprod(A, u)))
    H <- tcrossprod(A %*% Diagonal(x = -s$w * r$second), A) + Diagonal(length(u))
    step <- as.vector(solve(H, A %*% (s$w * r$first) - u))
    size <- 1
    while (!is.finite(new <- objective(u + size * step)) || new < value - 1e-12 * abs(value)) size <- size / 2
    u <- u + size * step
    value <- new
    if (max(abs(step)) < 1e-11) break
  }
  r <- row_terms(s$D, low, high, eta0 + as.vector(crossprod(A, u)))
  H <- tcrossprod(A %*% Diagonal(x = -s$w * r$second), A) + Diagonal(length(u))
  list(u = u, r = r, H = H, value = value)
}

hermite <- function(n) {
  off <- sqrt(seq_len(n - 1) / 2)
  M <- matrix(0, n, n)
  M[cbind(1:(n - 1), 2:n)] <- M[cbind(2:n, 1:(n - 1))] <- off
  e <- eigen(M, symmetric = TRUE)
  list(x = e$values, w = sqrt(pi) * e$vectors[1, ]^2)
}

# log-likelihood with everything that goes with it.
evaluate <- function(s, par, warm) {
  nJ <- ncol(s$J)
  p <- ncol(s$X)
  theta <- par[-seq_len(nJ + p)]
  cuts <- c(-Inf, as.vector(s$J %*% par[seq_len(nJ)]), Inf)
  if (is.unsorted(cuts)) return(list(value = -1e10))
  low <- cuts[s$y]
  high <- cuts[s$y + 1]
  eta0 <- as.vector(s$X %*% par[nJ + seq_len(p)])
  Lambdat <- s$Lambdat
  Lambdat@x <- theta[s$Lind]
  found <- modes_at(s, low, high, eta0, Lambdat, warm$u)
  warm$u <- found$u
  out <- list(u = found$u, H = found$H, Lambdat = Lambdat, fitted = exp(found$r$value))
  if (s$nAGQ == 1) {
    out$value <- found$value - as.numeric(determinant(found$H, logarithm = TRUE)$modulus) / 2
  } else {
    # One scalar random effect: the integral of every group over u, by nodes about its mode or about zero.
    group <- as.integer(s$terms$flist[[1]])
    q <- length(found$u)
    rule <- hermite(abs(s$nAGQ))
    centre <- if (s$nAGQ > 0) found$u else rep(0, q)
    # Not adaptive: the rule for the weight exp(-u^2), as clmm.
    width <- if (s$nAGQ > 0) 1 / sqrt(diag(as.matrix(found$H))) else rep(1 / sqrt(2), q)
    values <- vapply(seq_along(rule$x), function(k) {
      u <- centre + sqrt(2) * width * rule$x[k]
      rows <- s$w * row_terms(s$D, low, high, eta0 + theta[1] * u[group])$value
      as.vector(rowsum(rows, group)) - u^2 / 2 + rule$x[k]^2 + log(rule$w[k])
    }, numeric(q))
    top <- apply(values, 1, max)
    out$value <- sum(top + log(rowSums(exp(values - top))) + log(width) - log(pi) / 2)
  }
  out
}

start_of <- function(s) {
  share <- cumsum(tabulate(s$y, s$K))[-s$K] / length(s$y)
  c(qr.solve(s$J, qlogis(share)), rep(0, ncol(s$X)), ifelse(s$lower == 0, 0.8, 0))
}

describe <- function(name, model) {
  data <- read_data(model$data)
  s <- setup(model, data)
  warm <- new.env()
  warm$u <- rep(0, nrow(s$Zt))
  fn <- function(par) -2 * evaluate(s, par, warm)$value
  lower <- c(rep(-Inf, ncol(s$J) + ncol(s$X)), s$lower)
  start <- start_of(s)
  found <- nlminb(start, fn, lower = lower, control = list(rel.tol = 1e-13, iter.max = 500, eval.max = 5000))$par
  found <- nlminb(found, fn, lower = lower, control = list(rel.tol = 1e-14, iter.max = 500, eval.max = 5000))$par
  par <- polish(fn, found, lower, 6)
  best <- evaluate(s, par, warm)
  # A covariance matrix of less than full rank: the diagonal element that is zero stays there.
  free <- !(is.finite(lower) & par < 1e-5)
  H <- numDeriv::hessian(function(x) fn(replace(par, free, x)), par[free]) / 2
  se <- rep(NaN, length(par))
  se[free] <- suppressWarnings(sqrt(diag(MASS::ginv(H, tol = 1e-10))))
  nJ <- ncol(s$J)
  p <- ncol(s$X)
  b <- as.vector(crossprod(best$Lambdat, best$u))
  V <- crossprod(best$Lambdat, solve(best$H, best$Lambdat))
  groups <- names(s$terms$cnms)
  at <- 0
  theta_at <- 0
  modes <- sds <- list()
  for (i in seq_along(groups)) {
    k <- length(s$terms$cnms[[i]])
    J <- nlevels(s$terms$flist[[attr(s$terms$flist, "assign")[i]]])
    place <- at + seq_len(k * J)
    values <- matrix(b[place], J, k, byrow = TRUE)
    variances <- matrix(diag(as.matrix(V))[place], J, k, byrow = TRUE)
    shown <- seq_len(if (length(values) <= 200) J else 50)
    modes[[groups[i]]] <- list(values = values[shown, , drop = FALSE], cond_var = variances[seq_len(min(3, J)), , drop = FALSE])
    T <- matrix(0, k, k)
    T[lower.tri(T, diag = TRUE)] <- par[nJ + p + theta_at + seq_len(k * (k + 1) / 2)]
    sds[[groups[i]]] <- vec(sqrt(rowSums(T^2)))
    at <- at + k * J
    theta_at <- theta_at + k * (k + 1) / 2
  }
  levels <- levels(factor(model.response(model.frame(lme4::subbars(as.formula(model$formula)), data))))
  names <- switch(model$threshold, flexible = paste(head(levels, -1), levels[-1], sep = "|"),
                  equidistant = c("threshold.1", "spacing"),
                  symmetric = c("central", paste0("spacing.", seq_len(nJ - 1))))
  assign("the_data", data, envir = globalenv())
  call <- list(quote(clmm), as.formula(model$formula, globalenv()), quote(the_data), link = model$link,
               threshold = model$threshold, nAGQ = model$nAGQ)
  if (!is.null(model$weights)) call$weights <- as.name(model$weights)
  theirs <- quiet(eval(as.call(call), globalenv()))
  kept <- model[c("formula", "data", "link", "threshold", "nAGQ", "weights")]
  names(kept) <- c("formula", "data", "link", "threshold", "nAGQ", "weights")
  c(kept, list(
    log_likelihood = best$value, clmm_log_likelihood = c(logLik(theirs)) + 0, df = length(par), fixef = vec(par[nJ + seq_len(p)]),
    se = vec(se[nJ + seq_len(p)]), threshold_names = vec(names), thresholds = vec(par[seq_len(nJ)]),
    thresholds_se = vec(se[seq_len(nJ)]), sd = sds, ranef = modes, fitted = sum(best$fitted^2),
    singular = any(!free)))
}

stopped <- function(model) {
  assign("the_data", read_data(model$data), envir = globalenv())
  call <- list(quote(clmm), as.formula(model$formula, globalenv()), quote(the_data), link = model$link,
               threshold = model$threshold)
  if (!is.null(model$weights)) call$weights <- as.name(model$weights)
  m <- quiet(eval(as.call(call), globalenv()))
  c(model, list(log_likelihood = c(logLik(m)) + 0, fixef = vec(m$beta), thresholds = vec(as.vector(m$Theta)),
                sd = vec(vapply(VarCorr(m), function(v) attr(v, "stddev")[1], 0))))
}

fits <- each_model("clmm", describe)
early <- if (length(commandArgs(TRUE))) list() else lapply(all_models()$clmm_early_stopped, stopped)
write_reference("clmm.json.gz", list(models = fits, early_stopped = early))
