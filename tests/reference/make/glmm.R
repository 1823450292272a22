# glmm.json.gz: generalised models. `expected`: lme4's Laplace or quadrature (expected information) at polished optima;
# `observed`: glmmTMB's (observed information). Run in this directory: Rscript glmm.R [names]

suppressPackageStartupMessages({library(lme4); library(splines); library(glmmTMB)})
source("common.R")

vector_of <- function(x) {
  x <- as.numeric(x)
  list(n = length(x), head = vec(head(x, 10)), sum = sum(x, na.rm = TRUE), sumsq = sum(x^2, na.rm = TRUE),
       n_missing = sum(is.na(x)))
}

labels_of <- function(V) make.unique(names(V))

# lme4 leaves the terms of the saturated model out when nAGQ > 1.
log_likelihood <- function(m, model) {
  value <- -attr(m, "par")$value / 2
  if (model$nAGQ <= 1) return(value)
  frame <- model.frame(m)
  response <- model.response(frame)
  family <- family(m)
  trials <- if (is.matrix(response)) rowSums(response) else rep(1, NROW(response))
  y <- if (is.matrix(response)) ifelse(trials > 0, response[, 1] / trials, 0) else as.numeric(response)
  if (is.factor(response)) y <- as.numeric(response != levels(response)[1])
  value - family$aic(y, trials, y, if (family$family == "poisson") rep(1, length(y)) else trials, 0) / 2
}

shown <- function(r) {
  values <- as.matrix(r)
  keep <- seq_len(if (length(values) <= 200) nrow(values) else 50)
  list(values = unname(values[keep, , drop = FALSE]), col_sum = vec(colSums(values)), levels = vec(rownames(values)[keep]))
}

conditional <- function(m) lapply(ranef(m, condVar = TRUE), function(r) {
  v <- attr(r, "postVar")
  if (!is.list(v)) v <- list(v)
  lapply(unname(v), function(a) apply(a, 1:2, sum))
})

expected <- function(model, data) {
  m <- polished_glmer(model, data)
  V <- VarCorr(m)
  log_lik <- logLik(m)
  shape <- attr(m, "par")$shape
  list(log_likelihood = log_likelihood(m, model), df = attr(log_lik, "df") + 0, fixef = vec(fixef(m)),
       # lme4's covariance takes the shape as known: there is none to compare with.
       se = if (is.null(shape)) vec(sqrt(diag(generalised_vcov(m)))), sigma = shape,
       sd = setNames(lapply(V, function(v) vec(attr(v, "stddev"))), labels_of(V)),
       cor = setNames(lapply(V, function(v) unname(attr(v, "correlation"))), labels_of(V)),
       ranef = lapply(ranef(m), shown), cond_var = conditional(m), fitted = vector_of(fitted(m)),
       residuals = lapply(setNames(nm = c("response", "pearson", "deviance", "working")), function(t) vector_of(residuals(m, t))),
       singular = isSingular(m, tol = 1e-4))
}

tmb_family <- function(model) switch(model$family,
  binomial = binomial(model$link), poisson = poisson(model$link), gaussian = gaussian(model$link),
  gamma = Gamma(model$link), nbinomial = nbinom2(model$link), nbinomial1 = nbinom1(model$link))

observed <- function(model, data) {
  call <- list(quote(glmmTMB), as.formula(model$formula, globalenv()), quote(the_data), family = tmb_family(model))
  assign("the_data", data, envir = globalenv())
  if (identical(model$family, "gaussian")) call$REML <- FALSE
  if (!is.null(model$weights)) call$weights <- str2lang(model$weights)
  if (!is.null(model$offset)) call$offset <- str2lang(model$offset)
  if (!is.null(model$contrasts)) call$contrasts <- lapply(model$contrasts, as_contrast)
  fits <- lapply(list(nlminb, optim), function(optimizer) quiet(try(eval(as.call(c(call, list(control = glmmTMBControl(
    optimizer = optimizer, optArgs = if (identical(optimizer, optim)) list(method = "BFGS") else list(),
    optCtrl = if (identical(optimizer, nlminb)) list(iter.max = 2000, eval.max = 4000, rel.tol = 1e-14) else
      list(maxit = 2000, reltol = 1e-15))))), globalenv()), silent = TRUE)))
  fits <- Filter(function(m) !inherits(m, "try-error"), fits)
  m <- fits[[which.min(vapply(fits, function(m) m$fit$objective, 0))]]
  par <- m$fit$par
  for (i in 1:4) {
    H <- numDeriv::jacobian(m$obj$gr, par)
    parts <- eigen((H + t(H)) / 2, symmetric = TRUE)
    keep <- parts$values > 1e-8 * max(parts$values)
    g <- c(m$obj$gr(par))
    step <- -parts$vectors[, keep, drop = FALSE] %*% (crossprod(parts$vectors[, keep, drop = FALSE], g) / parts$values[keep])
    if (m$obj$fn(par + drop(step)) > m$obj$fn(par) + 1e-9) break
    par <- par + drop(step)
  }
  value <- m$obj$fn(par)
  H <- numDeriv::jacobian(m$obj$gr, par)
  is_beta <- names(par) == "beta"
  covariance <- try(solve((H + t(H)) / 2), silent = TRUE)
  if (inherits(covariance, "try-error")) covariance <- MASS::ginv((H + t(H)) / 2)
  full <- m$obj$env$last.par
  list(log_likelihood = -value, df = attr(logLik(m), "df"), fixef = vec(par[is_beta]), se = vec(sqrt(diag(covariance))[is_beta]),
       more = function() {
         V <- VarCorr(m)$cond
         list(sd = lapply(V, function(v) vec(attr(v, "stddev"))), cor = lapply(V, function(v) unname(attr(v, "correlation"))),
              ranef = lapply(ranef(m)$cond, shown), sigma = sigma(m), singular = FALSE)
       })
}

describe <- function(name, model) {
  data <- read_data(model$data)
  out <- model[c("data", "formula", "family", "link", "nAGQ", "weights", "offset", "contrasts", "na_action")]
  if (model$expected) out$expected <- expected(model, data)
  kept <- unlist(model$observed)
  if (length(kept)) {
    found <- observed(model, data)
    more <- if ("sd" %in% kept) found$more() else list()
    out$observed <- c(found[setdiff(names(found), "more")], more)[kept]
    names(out$observed) <- kept
  }
  out
}

write_reference("glmm.json.gz", list(models = each_model("glmm", describe)))
