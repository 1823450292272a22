# Worker that tests with R's pbkrtest.

suppressPackageStartupMessages(library(lme4))
suppressPackageStartupMessages(library(pbkrtest))

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "protocol.R"))

fit <- function(task) lmer(as.formula(task$formula), task$data, REML = task$reml)

# The F test that all coefficients but the intercept are zero.
kenward_roger <- function(model, task) {
  test <- KRmodcomp(model, cbind(0, diag(length(fixef(model)) - 1L)))
  list(test$stats$Fstat, test$stats$ddf)
}

serve("pbkrtest", fit, actions = list(kenward_roger = kenward_roger))
