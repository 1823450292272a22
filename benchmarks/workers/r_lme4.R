# Worker that fits with R's lme4.

suppressPackageStartupMessages(library(lme4))

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "protocol.R"))

fit <- function(task) {
  formula <- as.formula(task$formula)
  if (task$family == "gaussian") return(lmer(formula, task$data, REML = task$reml))
  if (task$family == "nbinomial") return(glmer.nb(formula, task$data))
  family <- switch(task$family, binomial = binomial, poisson = poisson, gamma = Gamma)
  glmer(formula, task$data, family = family(link = task$link), nAGQ = task$nagq)
}

# With quadrature lme4 leaves out the log-likelihood of the saturated model.
left_out <- function(model, task) {
  if (task$nagq == 1L) return(0)
  y <- getME(model, "y")
  family(model)$aic(y, rep(1, length(y)), y, weights(model), 0)
}

describe <- function(model, task) {
  singular <- isSingular(model)
  list(
    # The log-likelihood of gamma models is defined in another way than that of all other programs.
    criterion = if (task$family == "gamma") NA else -2 * as.numeric(logLik(model)) + left_out(model, task),
    evaluations = model@optinfo$feval,
    converged = length(model@optinfo$conv$lme4) == 0 || singular,
    singular = singular
  )
}

serve("lme4", fit, describe)
