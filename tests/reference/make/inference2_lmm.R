# inference2_lmm.json.gz: r2 and icc by performance, profile limits by root finding on lme4's deviance, likelihood-ratio
# tests, lmerTest::ranova and a refit, at the optima of lmm.json.gz. Run in this directory: Rscript inference2_lmm.R [names]

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

performance_of <- function(m) {
  icc <- quiet(try(performance::icc(m), silent = TRUE))
  r2 <- quiet(try(performance::r2_nakagawa(m), silent = TRUE))
  number <- function(x, name) {
    if (inherits(x, "try-error") || is.null(x) || !is.list(x) || is.null(x[[name]])) return(NULL)
    value <- unname(as.numeric(x[[name]]))
    if (is.finite(value)) value else NULL
  }
  list(icc_adjusted = number(icc, "ICC_adjusted"), icc_unadjusted = number(icc, "ICC_unadjusted"),
       r2_marginal = number(r2, "R2_marginal"), r2_conditional = number(r2, "R2_conditional"))
}

# -2 log-likelihood as a function of standard deviations and correlations, term by term, and sigma; beta is profiled out,
# but for the columns of X that are held.
variance_deviance <- function(fn, sizes, n) {
  state <- environment(fn)
  function(x) {
    sigma <- x[length(x)]
    at <- 0
    theta <- NULL
    for (k in sizes) {
      S <- diag(k)
      own <- x[at + seq_len(k * (k + 1) / 2)]
      at <- at + length(own)
      # In lme4's order: column by column of the lower triangle, standard deviations on the diagonal.
      R <- diag(k)
      place <- which(lower.tri(R, diag = TRUE), arr.ind = TRUE)
      sd <- own[place[, 1] == place[, 2]]
      R[place] <- ifelse(place[, 1] == place[, 2], 1, own)
      R <- R + t(R) - diag(k)
      root <- try(t(chol(R)), silent = TRUE)
      if (inherits(root, "try-error")) return(1e10)
      T <- sd * root / sigma
      theta <- c(theta, T[lower.tri(T, diag = TRUE)])
    }
    fn(theta)
    state$pp$ldL2() + n * log(2 * pi * sigma^2) + (state$resp$wrss() + state$pp$sqrL(1)) / sigma^2
  }
}

profiles <- function(name) {
  model <- all_models()$lmm[[name]]
  m <- linear_model(name, REML = FALSE)
  call <- linear_call(model, REML = FALSE)
  make <- function(call) {
    call$devFunOnly <- TRUE
    call$control <- quote(linear_control())
    quiet(eval(call, globalenv()))
  }
  V <- VarCorr(m)
  sizes <- vapply(V, nrow, 0L)
  n <- nobs(m)
  deviance <- variance_deviance(make(call), sizes, n)
  start <- unlist(lapply(V, function(v) {
    C <- attr(v, "correlation")
    diag(C) <- attr(v, "stddev")
    C[lower.tri(C, diag = TRUE)]
  }))
  is_cor <- unlist(lapply(V, function(v) {
    D <- diag(nrow(v))
    D[lower.tri(D, diag = TRUE)] == 0
  }))
  best <- c(unname(start), sigma(m))
  # lme4's deviance function does not recover from a number that is not finite: sigma keeps away from zero.
  lower <- c(ifelse(is_cor, -1 + 1e-12, 0), sigma(m) / 30)
  upper <- c(ifelse(is_cor, 1 - 1e-12, Inf), 30 * sigma(m))
  rows <- rownames(confint(m, method = "Wald", oldNames = FALSE))
  limits <- lapply(seq_along(best), function(j) profile_limits(deviance, best, lower, upper, j))
  X <- getME(m, "X")
  y <- getME(m, "y")
  for (j in seq_len(ncol(X))) {
    # The column that is held goes into an offset.
    held <- function(v) {
      assign("the_rest", X[, -j, drop = FALSE], envir = globalenv())
      assign("the_offset", v * X[, j], envir = globalenv())
      bars <- paste(sprintf("(%s)", vapply(findbars(as.formula(model$formula)), deparse1, "")), collapse = " + ")
      right <- if (ncol(X) > 1) "0 + the_rest" else "0"
      held_call <- call
      held_call[[2]] <- as.formula(paste(deparse1(as.formula(model$formula)[[2]]), "~", right, "+", bars), globalenv())
      held_call$offset <- quote(the_offset)
      fn <- make(held_call)
      theta_lower <- environment(fn)$lower
      found <- nlminb(getME(m, "theta"), fn, lower = theta_lower, control = list(rel.tol = 1e-14, x.tol = 1e-10))
      nlminb(found$par, fn, lower = theta_lower, control = list(rel.tol = 1e-14, x.tol = 1e-10))$objective
    }
    se <- sqrt(diag(as.matrix(vcov(m))))[j]
    rise <- function(v) held(v) - deviance(best) - qchisq(0.95, 1)
    outside <- function(sign) {
      width <- 2 * se
      while (rise(fixef(m)[[j]] + sign * width) < 0) width <- 1.5 * width
      uniroot(rise, sort(fixef(m)[[j]] + sign * c(0, width)), tol = 1e-9 * se)$root
    }
    limits <- c(limits, list(c(outside(-1), outside(1))))
  }
  list(rows = vec(rows), limits = lapply(limits, vec))
}

compared <- function(name, reduced, REML) {
  fits <- list(linear_model(name, reduced, REML), linear_model(name, REML = REML))
  values <- vapply(fits, function(m) c(logLik(m)), 0)
  df <- diff(vapply(fits, function(m) attr(logLik(m), "df"), 0))
  chi2 <- 2 * diff(values)
  list(reduced = reduced, logLik = vec(values), chi2 = chi2, df = df, p = pchisq(chi2, df, lower.tail = FALSE))
}

# ranova() fits the smaller models with the control of the larger one: tight tolerances, and no start.
ranova_of <- function(name) {
  call <- attr(linear_model(name), "plain_call")
  call$control <- quote(linear_control(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5)))
  found <- quiet(lmerTest::ranova(lmerTest::as_lmerModLmerTest(eval(call, globalenv()))))
  c(list(rows = vec(rownames(found))), lapply(as.list(found), vec))
}

refitted <- function(name, column) {
  model <- all_models()$lmm[[name]]
  formula <- as.formula(model$formula)
  formula[[2]] <- as.name(column)
  m <- linear_model(name, deparse1(formula))
  list(new_response = column, theta = vec(getME(m, "theta")), fixef = list(names = vec(names(fixef(m))), values = vec(fixef(m))),
       sigma = sigma(m), logLik = c(logLik(m)))
}

describe <- function(name, wanted) {
  model <- all_models()$lmm[[name]]
  out <- list(data = model$data, formula = model$formula, reml = model$reml, performance = performance_of(linear_model(name)))
  if (wanted$profile) out$profile <- profiles(name)
  if (wanted$ranova) out$ranova <- ranova_of(name)
  if (length(wanted$lrt)) out$lrt <- lapply(unlist(wanted$lrt), function(reduced) compared(name, reduced, FALSE))
  if (length(wanted$lrt_reml)) out$lrt_reml <- lapply(unlist(wanted$lrt_reml), function(reduced) compared(name, reduced, TRUE))
  if (!is.null(wanted$refit)) out$refit <- refitted(name, wanted$refit)
  out
}

write_reference("inference2_lmm.json.gz", list(models = each_model("inference2_lmm", describe)))
