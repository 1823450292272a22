# inference_glmm.json.gz: r2 and icc by performance, profile limits by root finding on lme4's deviance, and likelihood
# ratios, at the optima of glmm.json.gz. Run in this directory: Rscript inference_glmm.R [names]

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

performance_of <- function(m, wanted) {
  icc <- quiet(try(performance::icc(m), silent = TRUE))
  r2 <- quiet(try(performance::r2_nakagawa(m), silent = TRUE))
  number <- function(x, name) {
    if (inherits(x, "try-error") || is.null(x) || !is.list(x) || is.null(x[[name]])) return(NULL)
    value <- unname(as.numeric(x[[name]]))
    if (is.finite(value)) value else NULL
  }
  list(icc_adjusted = number(icc, "ICC_adjusted"), icc_unadjusted = number(icc, "ICC_unadjusted"),
       r2_marginal = number(r2, "R2_marginal"), r2_conditional = number(r2, "R2_conditional"))[wanted]
}

# The deviance as a function of standard deviations, correlations and beta.
profiles <- function(m) {
  own <- attr(m, "par")
  V <- VarCorr(m)
  stopifnot(length(V) == 1)
  v <- V[[1]]
  k <- nrow(v)
  place <- which(lower.tri(v, diag = TRUE), arr.ind = TRUE)
  on_diagonal <- place[, 1] == place[, 2]
  n_theta <- nrow(place)
  fn <- function(x) {
    R <- diag(k)
    R[place] <- ifelse(on_diagonal, 1, x[seq_len(n_theta)])
    R <- R + t(R) - diag(k)
    root <- try(t(chol(R)), silent = TRUE)
    if (inherits(root, "try-error")) return(1e10)
    T <- x[seq_len(n_theta)][on_diagonal] * root
    own$fn(c(T[lower.tri(T, diag = TRUE)], x[-seq_len(n_theta)]))
  }
  C <- attr(v, "correlation")
  diag(C) <- attr(v, "stddev")
  best <- c(C[place], fixef(m))
  lower <- c(ifelse(on_diagonal, 0, -1 + 1e-10), rep(-Inf, length(fixef(m))))
  upper <- c(ifelse(on_diagonal, Inf, 1 - 1e-10), rep(Inf, length(fixef(m))))
  names <- rownames(confint(m, method = "Wald", oldNames = FALSE))
  list(names = vec(names), limits = lapply(seq_along(best), function(j) vec(profile_limits(fn, unname(best), lower, upper, j))))
}

compared <- function(m, model, data, restricted) {
  small <- polished_glmer(model, data, restricted)
  list(restricted = restricted, chi2 = attr(small, "par")$value - attr(m, "par")$value,
       df = attr(logLik(m), "df") - attr(logLik(small), "df"))
}

describe <- function(name, wanted) {
  model <- all_models()$glmm[[name]]
  data <- read_data(model$data)
  m <- polished_glmer(model, data)
  out <- list(performance = performance_of(m, unlist(wanted$performance)))
  if (wanted$profile) out$profile <- profiles(m)
  if (length(wanted$lrt)) out$lrt <- lapply(unlist(wanted$lrt), function(restricted) compared(m, model, data, restricted))
  out
}

write_reference("inference_glmm.json.gz", list(models = each_model("inference_glmm", describe)))
