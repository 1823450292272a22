# accessors.json: what other packages give beside the estimates: predictions of the random part alone and of part of a
# term (lme4), BIC by groups, correlations of the fixed effects, variance-scale profiles, covariance of all parameters
# (glmmTMB, whose parameters are logarithms), the HTZ test of clubSandwich.
# Run in this directory: Rscript accessors.R

suppressPackageStartupMessages({library(lme4); library(glmmTMB); library(clubSandwich)})
source("common.R")

m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)
g <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)
p <- lmer(Yield ~ 1 + (1 | Batch), Dyestuff, REML = FALSE)
ci <- confint(profile(p, prof.scale = "varcov"), level = .95)
t <- glmmTMB(Reaction ~ Days + (1 | Subject), sleepstudy)
V <- vcov(t, full = TRUE)
# Logarithms of the residual variance and of the standard deviation of the subjects, in the order of glmmTMB 1.1.5.
slope <- c(1, 1, sigma(t) / 2, attr(VarCorr(t)$cond$Subject, "stddev"))
o <- lmer(distance ~ age * Sex + (1 | Subject), as.data.frame(nlme::Orthodont))
htz <- Wald_test(o, constrain_zero(2:4), vcov = "CR2", cluster = nlme::Orthodont$Subject, test = "HTZ")
write_reference("accessors.json", list(
  versions = versions("lme4", "glmmTMB", "clubSandwich"),
  random_only = unname(predict(m, random.only = TRUE))[1:12],
  random_only_glm = unname(predict(g, random.only = TRUE))[1:12],
  intercepts = unname(predict(m, re.form = ~ (1 | Subject)))[1:12],
  bic_groups = as.numeric(-2 * logLik(m) + log(18) * attr(logLik(m), "df")),
  correlation = cov2cor(as.matrix(vcov(g)))[lower.tri(diag(4))],
  variances = unname(ci[1:2, ]),
  covariance = unname(diag(slope) %*% V %*% diag(slope)),
  htz = list(F = htz$Fstat, df_num = htz$df_num, df = htz$df_denom, p = htz$p_val)))
