# gaussian_logit.json: glmmTMB's gaussian model with the logit link, shares of (150, 550) of sleepstudy's reactions.
# Run in this directory: Rscript gaussian_logit.R

suppressPackageStartupMessages({library(lme4); library(glmmTMB)})
source("common.R")

d <- sleepstudy
d$p <- (d$Reaction - 150) / 400
m <- glmmTMB(p ~ Days + (1 | Subject), d, family = gaussian("logit"),
             control = glmmTMBControl(optCtrl = list(rel.tol = 1e-14, x.tol = 1e-12, iter.max = 1e4, eval.max = 1e4)))
write_reference("gaussian_logit.json", list(
  versions = versions("glmmTMB"),
  beta = vec(fixef(m)$cond),
  std_error = vec(sqrt(diag(vcov(m)$cond))),
  sd = sqrt(VarCorr(m)$cond$Subject[1]),
  sigma = sigma(m),
  log_likelihood = c(logLik(m))))
