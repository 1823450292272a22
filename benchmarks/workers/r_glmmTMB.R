# Worker that fits generalised models with R's glmmTMB.

suppressPackageStartupMessages(library(glmmTMB))

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "protocol.R"))

fit <- function(task) {
  if (task$nagq > 1L) stop("glmmTMB has no adaptive quadrature")
  family <- switch(task$family, binomial = binomial, poisson = poisson, gamma = Gamma, nbinomial = nbinom2)
  glmmTMB(as.formula(task$formula), task$data, family = family(link = task$link))
}

describe <- function(model, task) {
  list(
    criterion = -2 * as.numeric(logLik(model)),
    evaluations = model$fit$evaluations[["function"]],
    converged = model$fit$convergence == 0 && isTRUE(model$sdr$pdHess),
    singular = NA
  )
}

serve("glmmTMB", fit, describe)
